"""`servetune verify`: from the command line to the claims, and back to an exit status."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer

from serving.claims import Claim


def verify_command(
    spec: Annotated[Path, typer.Argument(help="A spec that servetune spec wrote.", show_default=False)],
    files: Annotated[
        Path | None, typer.Option(help="Folder of exported vllm files to start. Default: a fresh export.")
    ] = None,
    live: Annotated[
        str | None, typer.Option(help="URL of a running deployment: checked by reading, not by load.")
    ] = None,
    api_key_env: Annotated[
        str | None, typer.Option(help="With --live: environment variable that holds the key.")
    ] = None,
    probe: Annotated[
        bool, typer.Option("--probe", help="With --live: one request for one token, for the fingerprint.")
    ] = False,
    soak: Annotated[
        str | None, typer.Option(help="Go on under the promised load for this long, such as 1h.")
    ] = None,
    signature: Annotated[
        Path | None, typer.Option(help="Envelope that servetune sign wrote; needs --public-key.")
    ] = None,
    public_key: Annotated[Path | None, typer.Option(help="PEM file of the signer's public key.")] = None,
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="On PASS: write the spec, now verified, to this file.")
    ] = None,
    json: Annotated[
        str | None, typer.Option("--json", metavar="FILE|-", help="Write the claims as JSON.")
    ] = None,
) -> int:
    """Start the exported files and hold every claim against them. Exit: 0 PASS, 1 FAIL, 3 INCONCLUSIVE."""
    from bench.store import write_whole
    from servetune.cli.json_output import write_json
    from servetune.deploy.deployable import dump
    from servetune.deploy.evidence.account import FINGERPRINT
    from servetune.deploy.signing import check
    from servetune.deploy.spec import load
    from servetune.deploy.verify import verify
    from serving.claims import EXIT, overall
    from serving.errors import UserError
    from serving.lock import device_lock
    from serving.units import seconds

    found = load(spec)
    if live and (files or out or soak):
        raise UserError(
            "--live reads a running server; it starts no files and verifies no spec", "leave out the others"
        )
    if (signature is None) != (public_key is None):
        raise UserError("a signature is checked with a key", "give both --signature and --public-key")
    try:
        soak_s = seconds(soak) if soak else None
    except ValueError as error:
        raise UserError(f"--soak: {error}", "--soak 1h") from error
    claims = [check(spec, signature, public_key)] if signature and public_key else []
    if overall(claims) == "FAIL":
        pass  # nothing is started that somebody else wrote
    elif live:
        claims += verify.verify_live(found, live, api_key_env, probe=probe)
    else:
        held = device_lock(found.hardware.device, f"servetune verify {spec}")
        with held, tempfile.TemporaryDirectory(prefix="servetune-verify-") as folder:
            claims += verify.verify(found, Path(folder), files, soak_s)
    verdict = overall(claims)
    if json:
        write_json(
            {"spec": found.metadata.id, "verdict": verdict.lower(), "claims": [_as_json(c) for c in claims]},
            json,
        )
    if json != "-":
        for claim in claims:
            print(f"{claim.verdict:13} {claim.name:15} {claim.note}")
        print(f"{verdict}: {spec}")
    if out and verdict == "PASS":
        status = found.status.model_copy(update={"verified": True})
        said = [(FINGERPRINT, c.note) for c in claims if c.name == "fingerprint"]
        changed = {"status": status, "effective": {**found.effective, **dict(said)}}
        write_whole(out, dump(found.model_copy(update=changed)))
        print(f"wrote {out}", file=sys.stderr)
    return EXIT[verdict]


def _as_json(claim: Claim) -> dict[str, Any]:
    """The keys and spellings that `verify --json` has had from the start."""
    return {
        "name": claim.name,
        "verdict": claim.verdict.lower(),
        "text": claim.note,
        "effect": claim.effect,
        "interval": claim.interval,
        "threshold": claim.threshold,
    }
