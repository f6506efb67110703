"""`servetune spec`: the spec of a measured run, written to a file or to stdout."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from servetune.deploy.deployable import refusals

if TYPE_CHECKING:
    from servetune.deploy.spec import SecretRef


def spec_command(
    run: Annotated[
        Path, typer.Argument(help="Folder of a run or a study under results/.", show_default=False)
    ],
    out: Annotated[Path | None, typer.Option("-o", "--out", help="File to write. Default: stdout.")] = None,
    point: Annotated[
        str | None,
        typer.Option(help="Key of the point (its beginning will do). Default: the winner."),
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name of the deployment.")] = None,
    image: Annotated[
        str | None, typer.Option(help="Image that will run it: registry/name:tag@sha256:...")
    ] = None,
    replicas: Annotated[int, typer.Option(min=1, help="Replicas in production.")] = 1,
    secret: Annotated[
        list[str] | None, typer.Option(help="A secret by reference: ENV=OBJECT/KEY. Repeatable.")
    ] = None,
    replaces: Annotated[
        Path | None, typer.Option(help="The spec that runs now, kept as the way back.")
    ] = None,
    plugin: Annotated[
        list[str] | None, typer.Option(help="Package of the image that the engine needs. Repeatable.")
    ] = None,
    fallback: Annotated[
        bool, typer.Option("--fallback", help="Write the next best measured configuration instead.")
    ] = False,
    fallback_spec: Annotated[
        Path | None, typer.Option(help="Spec of the measured fallback, to note its id.")
    ] = None,
    schema: Annotated[
        bool, typer.Option("--schema", help="Print the JSON Schema of spec files instead.")
    ] = False,
) -> int:
    """Write the serving spec of a run or a study: what to deploy, and everything that says why."""
    import json

    from bench.records.folder import RunFolder
    from bench.scenario import scenariofile
    from bench.store import write_whole
    from servetune.deploy import specify
    from servetune.deploy.deployable import dump
    from servetune.deploy.quoting import one_line
    from servetune.deploy.spec import json_schema, load

    if schema:
        print(json.dumps(json_schema(), indent=2))
        return 0
    folder = RunFolder.open(run)
    scenario = scenariofile.load(folder.path / "scenario.yaml")
    parent = load(replaces).metadata.id if replaces else None
    secrets, plugins = tuple(map(_secret, secret or [])), tuple(plugin or ())
    other = load(fallback_spec).metadata.id if fallback_spec else None
    asked = specify.SpecRequest(name, point, image, replicas, secrets, plugins, parent, other, fallback)
    found = specify.specify(folder, scenario, asked)
    for slo in specify.unwatched(scenario):
        print(f"note: the server has no histogram for {slo}; no exported alert watches it", file=sys.stderr)
    for reason in refusals(found):
        print(f"NOT DEPLOYABLE: {one_line(reason)}", file=sys.stderr)
    for warning in found.status.warnings:
        print(f"warning: {one_line(warning)}", file=sys.stderr)
    if out is None:
        print(dump(found), end="")
        return 0
    write_whole(out, dump(found))
    print(f"wrote {out}", file=sys.stderr)
    return 0


def _secret(text: str) -> SecretRef:
    from servetune.deploy.spec import SecretRef
    from serving.errors import UserError

    env, equals, place = text.partition("=")
    name, slash, key = place.partition("/")
    if not (env and equals and name and slash and key):
        raise UserError(
            f"{text!r} is no reference to a secret", "--secret VLLM_API_KEY=inference-keys/api-key"
        )
    return SecretRef(env=env, name=name, key=key)
