"""Signatures: of this file by this key, and of nothing else; the statement is in-toto's."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from servetune.cli.main import main
from servetune.deploy.signing import PAYLOAD, STATEMENT, check
from serving.errors import UserError

GOLDEN = Path(__file__).parents[1] / "golden" / "spec.yaml"
PEM, PKCS8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8


def pair(folder: Path, name: str, password: bytes | None = None, curve: bool = False) -> tuple[Path, Path]:
    key = ec.generate_private_key(ec.SECP256R1()) if curve else ed25519.Ed25519PrivateKey.generate()
    hidden = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    private, public = folder / f"{name}.pem", folder / f"{name}.pub"
    private.write_bytes(key.private_bytes(PEM, PKCS8, hidden))
    public.write_bytes(key.public_key().public_bytes(PEM, serialization.PublicFormat.SubjectPublicKeyInfo))
    return private, public


@pytest.fixture
def signed(tmp_path: Path) -> tuple[Path, Path, Path]:
    """Spec, envelope, public key."""
    private, public = pair(tmp_path, "mine")
    spec = tmp_path / "spec.yaml"
    spec.write_bytes(GOLDEN.read_bytes())
    assert main(["sign", str(spec), "--key", str(private)]) == 0
    return spec, tmp_path / "spec.yaml.sig.json", public


def test_a_signed_spec_passes(signed: tuple[Path, Path, Path]) -> None:
    assert check(*signed).verdict == "PASS"
    envelope = json.loads(signed[1].read_text())
    said = json.loads(base64.b64decode(envelope["payload"]))
    assert envelope["payloadType"] == PAYLOAD
    assert said["_type"] == STATEMENT
    assert said["subject"][0]["name"] == "spec.yaml"
    assert said["predicate"]["deployable"] is True


def test_a_changed_spec_another_key_and_a_changed_statement_fail(
    signed: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    spec, envelope, public = signed
    _, other = pair(tmp_path, "other")
    assert check(spec, envelope, other).verdict == "FAIL"
    body = json.loads(envelope.read_text())
    payload = base64.b64decode(body["payload"]).replace(b'"deployable":true', b'"deployable":false')
    forged = tmp_path / "forged.json"
    forged.write_text(json.dumps({**body, "payload": base64.b64encode(payload).decode()}))
    assert check(spec, forged, public).verdict == "FAIL"
    forged.write_text(json.dumps({**body, "signatures": []}))
    assert check(spec, forged, public).verdict == "FAIL"
    spec.write_text(spec.read_text() + "\n")
    assert check(spec, envelope, public).verdict == "FAIL"


@pytest.mark.parametrize(
    "text", ["{}", "no json", '{"payload": "x", "payloadType": "y", "signatures": [{}]}', "[]"]
)
def test_what_is_no_envelope_is_said_to_be_none(
    signed: tuple[Path, Path, Path], tmp_path: Path, text: str
) -> None:
    (tmp_path / "x").write_text(text)
    with pytest.raises(UserError, match="x:"):
        check(signed[0], tmp_path / "x", signed[2])


def test_the_run_is_signed_with_it_and_a_password_opens_the_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    private, public = pair(tmp_path, "hidden", b"open sesame", curve=True)
    (tmp_path / "run" / "points").mkdir(parents=True)
    (tmp_path / "run" / "events.jsonl").write_text("{}")
    (tmp_path / "run" / "points" / "p.json").write_text("{}")
    asked = ["sign", str(GOLDEN), "--key", str(private), "--evidence", str(tmp_path / "run"),
             "-o", str(tmp_path / "sig")]  # fmt: skip
    assert main(asked) == 2
    assert "private key" in capsys.readouterr().err
    monkeypatch.setenv("KEY_PASSWORD", "open sesame")
    assert main([*asked, "--password-env", "KEY_PASSWORD"]) == 0
    claim = check(GOLDEN, tmp_path / "sig", public)
    assert claim.verdict == "PASS"
    assert claim.note.startswith("3 files")


def test_verify_starts_nothing_for_a_wrong_signature(
    signed: tuple[Path, Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec, envelope, _ = signed
    _, other = pair(tmp_path, "other")
    asked = ["verify", str(spec), "--signature", str(envelope)]
    assert main(asked) == 2
    capsys.readouterr()
    assert main([*asked, "--public-key", str(other), "--json", "-"]) == 1
    said = json.loads(capsys.readouterr().out)
    assert [c["name"] for c in said["claims"]] == ["signature"]
