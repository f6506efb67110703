"""The one console script: puts the packages' commands together, nothing else.

Exit status: 0 done or pass, 1 failed or fail, 2 the user's to fix, 3 inconclusive, 130 interrupted.
"""

from __future__ import annotations

import sys
from pkgutil import resolve_name

import typer
from click.exceptions import Abort, ClickException

from serving.errors import ServetuneError

COMMANDS: dict[str, str] = {
    "doctor": "bench.doctor:doctor",
    "plan": "bench.commands:plan",
    "bench": "bench.commands:bench",
    "load": "bench.load.command:load",
    "report": "bench.report.command:report",
    "compare": "bench.compare:compare_command",
}


def main(argv: list[str] | None = None) -> int:
    """Runs one command; errors become `error:` and `hint:` on stderr and an exit status."""
    app = typer.Typer(
        name="servetune",
        help="Measures LLM inference engines and finds the serving configuration to deploy.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
    )
    for name, where in COMMANDS.items():
        app.command(name)(resolve_name(where))
    try:
        status = app(args=argv, standalone_mode=False)
    except ServetuneError as error:
        print(f"error: {error.message}", file=sys.stderr)
        if error.hint:
            print(f"hint: {error.hint}", file=sys.stderr)
        return error.exit_code
    except ClickException as error:
        error.show()
        return error.exit_code
    except (KeyboardInterrupt, Abort):
        print("interrupted; everything measured so far is kept", file=sys.stderr)
        return 130
    return int(status or 0)


if __name__ == "__main__":
    sys.exit(main())
