"""`servetune sign`: who stands for a spec and its evidence. A DSSE envelope around an in-toto statement.

Statement v1 (in-toto.io/Statement/v1): its subjects are the spec and, where given, every file of the run by
sha256; its predicate says what was claimed. Keys are local PEM files; nothing asks a network service.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from servetune.deploy.deployable import refusals
from servetune.deploy.spec import ServingSpec
from serving.claims import Claim
from serving.errors import UserError

PAYLOAD = "application/vnd.in-toto+json"
STATEMENT = "https://in-toto.io/Statement/v1"
PREDICATE = "https://servetune.invalid/serving-spec/v1"
INSTALL = "pip install securesystemslib cryptography"


def statement(spec: ServingSpec, file: Path, evidence: Path | None) -> dict[str, Any]:
    """What is signed. Subjects are named by the file's own name, and below the run's folder."""
    subjects = [_subject(file.name, file)]
    if evidence is not None:
        listed = sorted(f for f in evidence.rglob("*") if f.is_file())
        if not listed:
            raise UserError(f"{evidence} holds no file", "--evidence results/RUN")
        subjects += [_subject(f"{evidence.name}/{f.relative_to(evidence).as_posix()}", f) for f in listed]
    predicate = {
        "spec": spec.metadata.id,
        "source": spec.metadata.source,
        "tool": {"version": spec.metadata.tool_version, "commit": spec.metadata.tool_commit},
        "deployable": not refusals(spec),
        "reasons": refusals(spec),
    }
    return {"_type": STATEMENT, "subject": subjects, "predicateType": PREDICATE, "predicate": predicate}


def sign(said: dict[str, Any], private_pem: bytes, password: bytes | None = None) -> dict[str, Any]:
    """The envelope as JSON. UserError for what is no key, or a password that does not open it."""
    try:
        from cryptography.hazmat.primitives.serialization import load_pem_private_key
        from securesystemslib.dsse import Envelope
        from securesystemslib.signer import CryptoSigner  # type: ignore[attr-defined]
    except ImportError as error:
        raise UserError(f"signing needs {error.name}", INSTALL) from error
    try:
        signer = CryptoSigner(load_pem_private_key(private_pem, password or None))
    except (ValueError, TypeError) as error:
        raise UserError(
            f"the private key cannot be used: {error}", "openssl genpkey -algorithm ed25519 -out key.pem"
        ) from error
    text = json.dumps(said, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    envelope = Envelope(text.encode(), PAYLOAD, {})
    envelope.sign(signer)
    made: dict[str, Any] = envelope.to_dict()
    return made


def check(spec: Path, signature: Path, public_key: Path) -> Claim:
    """Whether `signature` is of exactly this file by that key: PASS or FAIL. UserError for no envelope."""
    try:
        said = opened(json.loads(signature.read_text(encoding="utf-8")), public_key.read_bytes())
    except (OSError, ValueError) as error:
        raise UserError(f"{signature}: {error}", "give the file that servetune sign wrote") from error
    if said is None:
        return Claim("signature", "FAIL", f"{signature} is not signed by {public_key}")
    wanted = _subject(spec.name, spec)["digest"]
    listed = [s for s in said.get("subject", []) if s.get("digest") == wanted]
    if said.get("_type") != STATEMENT or said.get("predicateType") != PREDICATE or not listed:
        return Claim("signature", "FAIL", f"{signature} is about other files than {spec}")
    return Claim("signature", "PASS", f"{len(said['subject'])} files signed by {public_key}")


def opened(envelope: dict[str, Any], public_pem: bytes) -> dict[str, Any] | None:
    """The statement inside when the key signed it; None when it did not. ValueError: not an envelope."""
    try:
        from cryptography.hazmat.primitives.serialization import load_pem_public_key
        from securesystemslib.dsse import Envelope
        from securesystemslib.exceptions import FormatError, VerificationError
        from securesystemslib.signer import SSlibKey  # type: ignore[attr-defined]
    except ImportError as error:
        raise UserError(f"signatures need {error.name}", INSTALL) from error
    try:
        found = Envelope.from_dict(envelope)
    except (KeyError, TypeError, AttributeError, FormatError) as error:
        raise ValueError(f"not a DSSE envelope: {error!r}") from error
    key = SSlibKey.from_crypto(load_pem_public_key(public_pem))
    try:
        found.verify([key], 1)
    except VerificationError:
        return None
    if found.payload_type != PAYLOAD:
        return None
    said: dict[str, Any] = json.loads(found.payload)
    return said


def _subject(name: str, file: Path) -> dict[str, Any]:
    with file.open("rb") as content:
        return {"name": name, "digest": {"sha256": hashlib.file_digest(content, "sha256").hexdigest()}}
