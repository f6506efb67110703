"""`servetune export`: a spec as the files of one target."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer


def export_command(
    spec: Annotated[Path, typer.Argument(help="A spec that servetune spec wrote.", show_default=False)],
    to: Annotated[
        str,
        typer.Option(
            "--to",
            help="vllm, compose, kubernetes, production-stack, kserve, ray or delivery.",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path, typer.Option("-o", "--out", help="Folder to write; new or empty.", show_default=False)
    ],
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
    from bench.output import write_json
    from serving import exporters
    from serving.exporters import reading
    from serving.exporters.quoting import one_line
    from serving.spec import load

    found = load(spec)
    files = exporters.render(reading.deployment(found), to, allow_undeployable=allow_undeployable)
    exporters.write(files, out)
    for reason in found.refusals:
        print(f"NOT DEPLOYABLE: {one_line(reason)}", file=sys.stderr)
    if json:
        rows = [{"path": path, "sha256": exporters.digest(text)} for path, text in files.items()]
        data = {"spec": found.metadata.id, "target": to, "deployable": not found.refusals}
        write_json({**data, "reasons": found.refusals, "folder": str(out), "files": rows}, json)
    if json != "-":
        for path in files:
            print(out / path)
    return 0
