"""Told: the answer of a search on the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from search.explain import lines
from search.finals.spread import HORIZON, LEAST_ROUNDS

if TYPE_CHECKING:
    from rich.console import Console

    from bench.scenario.model import Scenario


def _show_accuracy(out: Console, finalist: dict[str, Any], won: bool) -> None:
    """What its certificate says: of the winner in any case, of the others when it is why they are out."""
    from rich.markup import escape

    accuracy = finalist["accuracy"]
    if accuracy is None or (accuracy["verdict"] == "PASS" and not won):
        return
    name = "" if won else " ".join(f"{k}={v}" for k, v in finalist["settings"].items()) + ": "
    items = f" on {accuracy['items']:,} held-out items" if accuracy["items"] else ""
    why = f": {accuracy['why']}" if accuracy["why"] else ""
    needed = accuracy["items_needed"]
    more = f"; {needed:,} items would settle it" if needed and accuracy["verdict"] == "INCONCLUSIVE" else ""
    out.print(f"  {escape(name)}accuracy {accuracy['verdict']}{items}{escape(why)}{more}")


def _show_robust(out: Console, finalist: dict[str, Any], won: bool) -> None:
    """On how many other loads it stood, and what it fell on."""
    from rich.markup import escape

    checks = finalist["robust"]
    if not checks:
        return
    name = "" if won else " ".join(f"{k}={v}" for k, v in finalist["settings"].items()) + ": "
    stood = sum(check["verdict"] == "PASS" for check in checks)
    out.print(f"  {escape(name)}on other loads, lengths and prompts: {stood} of {len(checks)} PASS")
    for check in checks:
        if check["verdict"] != "PASS":
            out.print(f"    {escape(check['condition'])}: {check['verdict']}, {escape(check['why'])}")


def _show_unsettled(out: Console, written: dict[str, Any]) -> None:
    from rich.markup import escape

    out.print(f"[bold]not settled[/]: {escape(written['unsettled']['why'])}")
    out.print(f"  {rounds_needed(written['unsettled'])}")
    missed = written["missed_at_most"]
    if missed is not None:
        out.print(f"  of the finalists that stand, none is more than {missed:.1%} better than the default:")
        out.print("  where that is not worth it (search: worthwhile), the default is the answer")
    out.print(f"  the search ended: {escape(written['ended'])}")


def rounds_needed(unsettled: dict[str, Any]) -> str:
    """How many more rounds would settle it, with what is uncertain about that."""
    more = unsettled["more_rounds"]
    middle, low, high = more["estimate"], more["low"], more["high"]
    kind = "launch" if unsettled["of"] else "round"
    if middle is None and low is None:
        return f"no number of further {kind}{'es' if kind == 'launch' else 's'} settles it"
    if middle is None:
        return f"at least {_counted(low, kind)} more are needed to settle it, perhaps more than {HORIZON:,}"
    if low == middle == high:
        return f"{_counted(middle, kind)} more would settle it"
    most = f"more than {HORIZON:,}" if high is None else f"{high:,}"
    return f"about {_counted(middle, kind)} more would settle it ({low:,} to {most})"


def more(file: Path, path: Path, scenario: Scenario, written: Mapping[str, Any]) -> str:
    """What to type for the rounds that would settle it, where a number can be named."""
    needed = written["unsettled"]["more_rounds"]
    count = needed["estimate"] or needed["low"]
    kept = "until it is settled, keep the default"
    if count is None:
        return kept
    rounds = max(LEAST_ROUNDS, written["rounds"] + count)
    budget = ""
    if scenario.search.budget_s is not None or scenario.search.budget_usd is not None:
        budget = " with a larger --budget or --usd, from which these rounds are kept back"
    return f"{kept}; for more rounds: servetune search {file} --resume --out {path} --rounds {rounds}{budget}"


def _counted(count: int, kind: str) -> str:
    return f"{count:,} {kind}" if count == 1 else f"{count:,} {kind}{'es' if kind == 'launch' else 's'}"


def by_default(written: dict[str, Any]) -> str:
    """Why a winner is named that was not shown to be better."""
    said = []
    for name in written["default_breaks"]:
        kept = written["baseline"]["promises"].get(name)
        if kept is None:
            said.append(name)
            continue
        by = kept["missed_by"]
        bounds = "" if by["low"] is None else f" [{by['low']:+.1%}, {by['high']:+.1%}]"
        said.append(f"{name} by {by['estimate']:.1%}{bounds} over {kept['launches']} launches")
    return f"named because the default surely breaks {', '.join(said)}; no gain over the default was shown"


def near(winner: dict[str, Any]) -> list[str]:
    """Promises that the winner missed in a launch, though it keeps them over all of its launches."""
    return [
        f"{name}: missed in {kept['broken']} of {kept['launches']} launches; over all of them it is kept by "
        f"{-kept['missed_by']['estimate']:.1%} of its limit"
        for name, kept in winner["promises"].items()
        if kept["broken"]
    ]


def show_search(written: dict[str, Any]) -> None:
    """The answer on stdout, then what it cost."""
    from rich.console import Console
    from rich.markup import escape

    out = Console(highlight=False)
    if written["simulated"]:
        out.print("[bold reverse] SIMULATED [/] nothing simulated may be deployed")
    out.print(f"[bold]{escape(written['scenario'])}[/]: {escape(written['question'])}")
    metric, winner = written["goal"][0]["metric"], written["winner"]
    if written["verdict"] == "not_settled":
        _show_unsettled(out, written)
    elif winner is None:
        out.print("no configuration kept every promise")
        out.print(f"  the search ended: {escape(written['ended'])}")
    elif written["verdict"] == "default_is_best":
        missed = written["missed_at_most"]
        bound = (
            ""
            if missed is None
            else f"; of the finalists that stand, none is more than {max(0.0, missed):.1%} better"
        )
        out.print(f"the default is best: {metric} {winner['value']:.5g}{bound}")
    else:
        shown = " ".join(f"{k}={v}" for k, v in winner["settings"].items())
        out.print(f"[bold green]{escape(shown)}[/]: {metric} {winner['value']:.5g}")
        gain = winner["gain"]
        if written["default_breaks"]:
            out.print(f"  {escape(by_default(written))}")
        if gain:
            bounds = f"{gain['estimate']:+.1%} [{gain['low']:+.1%}, {gain['high']:+.1%}] over the default"
            sure = f"{written['confidence']:.0%} confidence, {written['rounds']} rounds on fresh launches"
            out.print(f"  {bounds}, {sure}")
        if written["untried"]:
            out.print(f"  {escape(written['untried'])}")
        for line in near(winner):
            out.print(f"  {escape(line)}")
    for finalist in written["finalists"]:
        won = finalist["settings"] == (winner or {}).get("settings")
        _show_accuracy(out, finalist, won)
        _show_robust(out, finalist, won)
    for line in lines(written["explained"]):
        out.print(f"  {escape(line)}")
    spent = written["ledger"]
    parts = ", ".join(f"{name} {seconds / spent['total']:.0%}" for name, seconds in spent.items()
                      if name != "total" and spent["total"])  # fmt: skip
    out.print(
        f"{written['trials']} trials, {written['launches']} launches, {spent['total']:,.0f} s: {parts}",
        style="dim",
    )
    for name, count in written["failures"].items():
        out.print(f"  {count} x {name}", style="dim")
