"""The one console script: puts the packages' commands together, nothing else.

Exit status: 0 done or pass, 1 failed or fail, 2 the user's to fix, 3 inconclusive, 130 interrupted.
"""

from __future__ import annotations

import errno
import sys
from pkgutil import resolve_name
from typing import Any

import typer

from serving.errors import ServetuneError, UserError

# Typer carries a copy of click; its errors are reached through what it exports.
ClickError: Any = typer.BadParameter.__mro__[2]

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""The disk is full, or as good as that."""

COMMANDS: dict[str, str] = {
    "doctor": "servetune.cli.doctor:doctor",
    "plan": "servetune.cli.bench:plan",
    "bench": "servetune.cli.bench:bench",
    "load": "servetune.cli.load:load",
    "report": "servetune.cli.report:report",
    "compare": "servetune.cli.compare:compare_command",
    "evaluate": "servetune.cli.evaluate:evaluate_command",
    "gate": "servetune.cli.gate:gate_command",
    "spec": "servetune.cli.spec:spec_command",
    "verify": "servetune.cli.verify:verify_command",
    "sign": "servetune.cli.sign:sign_command",
    "diff": "servetune.cli.diff:diff_command",
    "capacity": "servetune.cli.capacity:capacity_command",
    "search": "servetune.cli.search:search",
    "replay": "servetune.cli.replay:replay",
    "export": "servetune.cli.export:export_command",
}


def main(argv: list[str] | None = None) -> int:
    """Runs one command; errors become `error:` and `hint:` on stderr and an exit status."""
    arguments = sys.argv[1:] if argv is None else argv
    app = typer.Typer(
        name="servetune", no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False
    )
    app.callback()(_about)
    # Only the command asked for is imported; the list of all of them needs all.
    asked = [name for name in arguments[:1] if name in COMMANDS]
    for name in asked or COMMANDS:
        app.command(name)(resolve_name(COMMANDS[name]))
    try:
        status = app(args=arguments, standalone_mode=False)
    except ServetuneError as error:
        print(f"error: {error.message}", file=sys.stderr)
        if error.hint:
            print(f"hint: {error.hint}", file=sys.stderr)
        return error.exit_code
    except ClickError as error:
        error.show()
        return int(error.exit_code)
    except BrokenPipeError:
        return 0  # `servetune report RUN | head`: everything was written before
    except OSError as error:
        if error.errno not in FULL:
            raise
        where = f" for {error.filename}" if error.filename else ""
        print(f"error: {error.strerror}{where}", file=sys.stderr)
        print(
            "hint: make room, then the same with --resume; everything measured so far is kept",
            file=sys.stderr,
        )
        return UserError.exit_code
    except (KeyboardInterrupt, typer.Abort):
        print("interrupted; everything measured so far is kept", file=sys.stderr)
        return 130
    return int(status or 0)


def _about() -> None:
    """Measures LLM inference engines and finds the serving configuration to deploy."""


if __name__ == "__main__":
    sys.exit(main())
