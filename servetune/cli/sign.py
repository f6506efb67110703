"""`servetune sign`: signs a spec and its evidence."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from servetune.deploy.signing import sign, statement


def sign_command(
    spec: Annotated[Path, typer.Argument(help="A spec that servetune spec wrote.", show_default=False)],
    key: Annotated[Path, typer.Option(help="PEM file of the private key.", show_default=False)],
    evidence: Annotated[
        Path | None, typer.Option(help="Folder of the run: every file of it is signed with the spec.")
    ] = None,
    password_env: Annotated[
        str | None, typer.Option(help="Environment variable with the key's password.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="File to write. Default: SPEC.sig.json")
    ] = None,
) -> int:
    """Sign a spec, and the run it is from, with a key of your own."""
    from servetune.cli.json_output import write_json
    from servetune.deploy.spec import load

    found = load(spec)
    password = os.environ.get(password_env, "").encode() if password_env else None
    file = out or spec.with_name(spec.name + ".sig.json")
    write_json(sign(statement(found, spec, evidence), key.read_bytes(), password), str(file))
    print(file)
    return 0
