"""Arguments and options that several commands share."""

from __future__ import annotations

import typer

SCENARIO = typer.Argument(help="A scenario file, such as scenarios/quickstart.yaml.", show_default=False)
JSON = typer.Option("--json", metavar="FILE|-", help="Write the data as JSON to a file, or - for stdout.")
