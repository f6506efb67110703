"""`servetune export`: a spec as the files of one target."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from servetune.deploy.deployable import refusals

if TYPE_CHECKING:
    from servetune.deploy.exporters.deployment import Deployment


def export_command(
    spec: Annotated[Path, typer.Argument(help="A spec that servetune spec wrote.", show_default=False)],
    to: Annotated[
        str,
        typer.Option(
            "--to",
            help="vllm, compose, kubernetes, production-stack, kserve, ray, delivery or bom.",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path, typer.Option("-o", "--out", help="Folder to write; new or empty.", show_default=False)
    ],
    rollback: Annotated[
        Path | None, typer.Option(help="Spec that runs now: written beside it, with the way back to it.")
    ] = None,
    fallback: Annotated[
        Path | None, typer.Option(help="Spec of the measured fallback: written beside it too.")
    ] = None,
    allow_undeployable: Annotated[
        bool,
        typer.Option(
            "--allow-undeployable", help="Write the files all the same; each says why not to use them."
        ),
    ] = False,
    json: Annotated[
        str | None, typer.Option("--json", metavar="FILE|-", help="List what was written as JSON.")
    ] = None,
) -> int:
    """Write the deployment files of a spec for one target. The same spec gives the same bytes."""
    from servetune.cli.json_output import write_json
    from servetune.deploy import exporters
    from servetune.deploy.exporters import reading
    from servetune.deploy.exporters import rollback as back
    from servetune.deploy.quoting import one_line
    from servetune.deploy.spec import load

    found = load(spec)
    now = reading.deployment(found)
    files = exporters.render(now, to, allow_undeployable=allow_undeployable)
    earlier = _other(rollback, "--rollback", found.rollback.spec_id)
    files |= back.files(now, to, earlier, _other(fallback, "--fallback", found.rollback.fallback_id))
    exporters.write(files, out)
    for reason in refusals(found):
        print(f"NOT DEPLOYABLE: {one_line(reason)}", file=sys.stderr)
    if json:
        rows = [{"path": path, "sha256": exporters.digest(text)} for path, text in files.items()]
        data = {"spec": found.metadata.id, "target": to, "deployable": not refusals(found)}
        write_json({**data, "reasons": refusals(found), "folder": str(out), "files": rows}, json)
    if json != "-":
        for path in files:
            print(out / path)
    return 0


def _other(file: Path | None, option: str, wanted: str | None) -> Deployment | None:
    """The spec in `file` as its exporters see it. UserError when the spec names another one."""
    from servetune.deploy.exporters.reading import deployment
    from servetune.deploy.spec import load
    from serving.errors import UserError

    if file is None:
        return None
    found = load(file)
    if wanted is not None and found.metadata.id != wanted:
        raise UserError(
            f"{file} is spec {found.metadata.id}, but the exported spec names {wanted}",
            f"give that one with {option}, or write the spec again with the other named in it",
        )
    return deployment(found)
