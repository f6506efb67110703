"""`servetune diff`: what changes between two specs, or a spec and a running server."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from servetune.deploy.diff import RISKS, changes, live_changes
from servetune.deploy.quoting import one_line


def diff_command(
    a: Annotated[Path, typer.Argument(help="The spec that runs.", show_default=False)],
    b: Annotated[
        str,
        typer.Argument(
            metavar="B|URL", help="The spec that would replace it, or a running server.", show_default=False
        ),
    ],
    api_key_env: Annotated[
        str | None, typer.Option(help="With a URL: environment variable that holds the key.")
    ] = None,
    json: Annotated[
        str | None, typer.Option("--json", metavar="FILE|-", help="Write the changes as JSON.")
    ] = None,
) -> int:
    """What changes from A to B and what each change puts at risk. A URL is read, never sent a request."""
    import httpx

    from servetune.cli.json_output import write_json
    from servetune.deploy.spec import load
    from serving.errors import UserError
    from serving.wire import WireError

    if b.startswith(("http://", "https://")):
        try:
            found = live_changes(load(a), b, api_key_env)
        except (httpx.HTTPError, WireError) as error:
            raise UserError(
                f"{b} does not answer as vLLM does: {error}", "--api-key-env NAME for a key"
            ) from error
    else:
        found = changes(load(a), load(Path(b)))
    if json:
        write_json({"changes": [asdict(change) for change in found]}, json)
    if json != "-":
        for change in found:
            print(f"{change.risk:9} {change.name}: {_short(change.before)} -> {_short(change.after)}")
        for name in dict.fromkeys(change.risk for change in found):
            print(f"# {name}: {RISKS[name]}")
        if not found:
            print("no difference")
    return 0


def _short(value: object) -> str:
    text = one_line(str(value)) if value is not None else "(not there)"
    return text if len(text) <= 60 else text[:57] + "..."
