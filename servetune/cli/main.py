"""The one console script: puts the packages' commands together, nothing else.

Exit status: 0 done or pass, 1 failed or fail, 2 the user's to fix, 3 inconclusive, 130 interrupted.
"""

from __future__ import annotations

import errno
import sys
from dataclasses import dataclass
from importlib.metadata import version
from pkgutil import resolve_name
from typing import Annotated, Any

import typer

from serving.errors import ServetuneError, UserError

# Typer carries a copy of click; its errors are reached through what it exports.
ClickError: Any = typer.BadParameter.__mro__[2]

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""The disk is full, or as good as that."""


@dataclass(frozen=True)
class HelpRow:
    """One row of the root help: where the function is, its group, and the first line of its docstring."""

    target: str
    group: str
    about: str


MEASURE, JUDGE, CHOOSE, DEPLOY = "Measure", "Compare", "Choose", "Deploy"

COMMANDS: dict[str, HelpRow] = {
    "doctor": HelpRow(
        "servetune.cli.doctor:doctor",
        MEASURE,
        "What this machine can run and why not. Exit status 0, or 1 when the job cannot run at all.",
    ),
    "plan": HelpRow(
        "servetune.cli.plan:plan",
        MEASURE,
        "What a scenario would run: points, launches, what is dropped and why, memory, time. Starts nothing.",
    ),
    "bench": HelpRow(
        "servetune.cli.bench:bench",
        MEASURE,
        "Measure every point of a scenario on real engines, keep raw results, make the report.",
    ),
    "load": HelpRow(
        "servetune.cli.load:load",
        MEASURE,
        "Measure a running server. Exit status 0; 1 when the measurement is invalid.",
    ),
    "report": HelpRow(
        "servetune.cli.report:report",
        MEASURE,
        "A run as a table here, and as report.html, summary.csv and summary.parquet in its folder.",
    ),
    "compare": HelpRow(
        "servetune.cli.compare:compare_command",
        JUDGE,
        "Is run B as good as run A? Ratio with interval, PASS, FAIL or INCONCLUSIVE (exit 0, 1, 3).",
    ),
    "evaluate": HelpRow(
        "servetune.cli.evaluate:evaluate_command",
        JUDGE,
        "Score a running server on accuracy, stability and security tasks; `servetune gate` compares two.",
    ),
    "gate": HelpRow(
        "servetune.cli.gate:gate_command",
        JUDGE,
        "May CANDIDATE replace BASELINE? Five parts, three verdicts; exit 0 pass, 1 fail, 3 inconclusive.",
    ),
    "search": HelpRow(
        "servetune.cli.search:search",
        CHOOSE,
        "Find the configuration to deploy: search, re-measure the best few, answer with an interval.",
    ),
    "replay": HelpRow(
        "servetune.cli.replay:replay",
        CHOOSE,
        "Compare searchers on grids whose optimum is known: regret per launch and per device minute.",
    ),
    "spec": HelpRow(
        "servetune.cli.spec:spec_command",
        DEPLOY,
        "Write the serving spec of a run or a study: what to deploy, and everything that says why.",
    ),
    "verify": HelpRow(
        "servetune.cli.verify:verify_command",
        DEPLOY,
        "Start the exported files and hold every claim against them. Exit: 0 PASS, 1 FAIL, 3 INCONCLUSIVE.",
    ),
    "export": HelpRow(
        "servetune.cli.export:export_command",
        DEPLOY,
        "Write the deployment files of a spec for one target. The same spec gives the same bytes.",
    ),
    "sign": HelpRow(
        "servetune.cli.sign:sign_command",
        DEPLOY,
        "Sign a spec, and the run it is from, with a key of your own.",
    ),
    "diff": HelpRow(
        "servetune.cli.diff:diff_command",
        DEPLOY,
        "What changes from A to B and what each change puts at risk. A URL is read, never sent a request.",
    ),
    "capacity": HelpRow(
        "servetune.cli.capacity:capacity_command",
        DEPLOY,
        "Replicas, GPUs and money for a rate of the measured workload, or for a trace; with a spare one too.",
    ),
}


def main(argv: list[str] | None = None) -> int:
    """Runs one command; errors become `error:` and `hint:` on stderr and an exit status."""
    arguments = sys.argv[1:] if argv is None else argv
    app = typer.Typer(
        name="servetune", no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False
    )
    app.callback()(_about)
    # Only the command asked for is imported; the list of all of them needs none.
    asked = [name for name in arguments[:1] if name in COMMANDS]
    for name in asked or COMMANDS:
        row = COMMANDS[name]
        function = resolve_name(row.target) if asked else _listed
        app.command(name, help=None if asked else row.about, rich_help_panel=row.group)(function)
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


def _listed() -> None:
    """Stands for a command in the root help; never called, since a command that is asked for is imported."""


def _version(wanted: bool) -> None:
    if wanted:
        print(f"servetune {version('servetune')}")
        raise typer.Exit


def _about(
    _: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Measures LLM inference engines and finds the serving configuration to deploy."""


if __name__ == "__main__":
    sys.exit(main())
