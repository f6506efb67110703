"""The part of the page that a search has: its answer, its history, what mattered, what it cost.

Read from `study.json` and `study.jsonl` in the study's folder (docs/search.md), which a search writes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.records.folder import RunFolder
from search.resume import NAME, StudyLog
from servetune.report import labels
from serving.errors import BrokenRunError
from serving.units import share

ANSWER = "study.json"
DRAWN = ("number", "fidelity", "label", "value", "spread", "feasible", "open", "values", "settings")


def read(folder: RunFolder) -> dict[str, Any] | None:
    """What the template and the figures need; None for a run that is no study."""
    if not (folder.path / NAME).is_file():
        return None
    events = StudyLog(folder.path).events()
    answer = _answer(folder.path / ANSWER)
    looks = [_look(event) for event in events if "outcome" in event]
    winner = answer["winner"] if answer else None
    baseline = key(answer["baseline"]["settings"]) if answer else None
    return {
        "ended": answer is not None,
        "answer": answer,
        "headline": _headline(answer),
        "metric": labels.title(answer["goal"][0]["metric"]) if answer else "value",
        "minimize": answer["goal"][0]["direction"] == "minimize" if answer else True,
        "goals": [one["metric"] for one in answer["goal"]] if answer else [],
        "looks": looks,
        "finalists": [_finalist(one, winner, baseline) for one in answer["finalists"]] if answer else [],
        "refused": [one for one in looks if one["refused"]],
        "failures": _failures(looks),
        "ledger": _ledger(answer["ledger"]) if answer else [],
    }


def figures(study: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """What page.js draws: the looks in order, one line a setting for the parallel coordinates."""
    if study is None:
        return None
    names = dict.fromkeys(name for look in study["looks"] for name in look["settings"])
    return {
        "metric": study["metric"],
        "minimize": study["minimize"],
        "goals": study["goals"],
        "settings": list(names),
        "looks": [
            {name: look[name] for name in DRAWN}
            for look in study["looks"]
            if look["value"] is not None and look["fidelity"] != "stress"
        ],
        "effects": [one for one in (study["answer"] or {}).get("explained", {}).get("settings", [])
                    if one["effect"] is not None],
    }  # fmt: skip


def label(settings: Mapping[str, Any]) -> str:
    return " ".join(str(v) if k == "engine" else f"{k}={v}" for k, v in settings.items())


def key(settings: Mapping[str, Any]) -> str:
    return json.dumps(dict(settings), sort_keys=True, default=str)


def _look(event: Mapping[str, Any]) -> dict[str, Any]:
    one = event["outcome"]
    variance = one.get("variance")
    broken = {name: by for name, by in one["violations"].items() if by > 0}
    return {
        "number": event.get("trial"),
        "fidelity": one["fidelity"],
        "settings": one["config"],
        "label": label(one["config"]),
        "value": one["value"],
        "values": one.get("values", {}),
        "spread": variance**0.5 if variance else None,
        "feasible": one["feasible"],
        "failure": one["failure"],
        "detail": one.get("detail", ""),
        "broken": ", ".join(f"{name} by {share(by)}" for name, by in broken.items()),
        "undetermined": _undetermined(one),
        "open": bool(one.get("undetermined")) and not broken and one["failure"] is None,
        "refused": one["failure"] in ("does_not_fit", "cannot_win", "refused"),
    }


def _finalist(
    one: Mapping[str, Any], winner: Mapping[str, Any] | None, baseline: str | None
) -> dict[str, Any]:
    gain, accuracy = one["gain"], one.get("accuracy")
    checks = one.get("robust") or []
    return {
        "label": label(one["settings"]),
        "role": "winner" if winner and winner["settings"] == one["settings"]
        else "default" if key(one["settings"]) == baseline else "",
        "value": labels.number(one["value"]),
        "gain": f"{gain['estimate']:+.1%} [{gain['low']:+.1%}, {gain['high']:+.1%}]" if gain else "",
        "out": one.get("standing", "kept" if one["feasible"] else "broken") == "broken",
        "untold": one.get("standing") == "untold",
        "departures": one["departures"],
        "accuracy": "" if accuracy is None else accuracy["verdict"],
        "accuracy_why": "" if accuracy is None else accuracy["why"],
        "items": accuracy["items"] if accuracy else None,
        "checks": checks,
        "stood": sum(check["verdict"] == "PASS" for check in checks),
        "failures": ", ".join(one["failures"]),
        "undetermined": _undetermined(one),
    }  # fmt: skip


def _undetermined(one: Mapping[str, Any]) -> str:
    """The promises that could not be told, and why; studies of before have none."""
    return ", ".join(f"{name}: {why}" for name, why in one.get("undetermined", {}).items())


def _headline(answer: Mapping[str, Any] | None) -> str:
    """The answer in one sentence, with its interval."""
    if answer is None:
        return "The search has not ended: what it has looked at so far is below, and --resume goes on."
    winner, missed = answer["winner"], answer["missed_at_most"]
    if answer["verdict"] == "not_settled":
        return _unsettled(answer)
    rest = (
        "" if missed is None else f" None of the other finalists that stand is more than {missed:.1%} better."
    )
    if winner is None:
        untold = answer.get("explained", {}).get("undetermined", [])
        said = "".join(
            f" {p['promise']} is undetermined in {p['looks']} full looks ({p['why']})." for p in untold
        )
        return f"No configuration kept every promise.{said}"
    if answer["verdict"] == "default_is_best":
        return f"The default is best: nothing was surely better.{rest}"
    gain = winner["gain"]
    sure = f", {answer['confidence']:.0%} confidence over {answer['rounds']} rounds on fresh launches"
    by = (
        f"{gain['estimate']:+.1%} [{gain['low']:+.1%}, {gain['high']:+.1%}] over the default{sure}"
        if gain
        else ""
    )
    broken = ", ".join(answer.get("default_breaks") or [])
    if broken:
        by = f"named because the default surely breaks {broken}, not for a gain{f' ({by})' if by else ''}"
    untried = answer.get("untried")
    return f"{label(winner['settings'])}: {by}.{rest}" + (f" It was {untried}." if untried else "")


def _unsettled(answer: Mapping[str, Any]) -> str:
    """Why there is no answer, and how many more rounds would give one."""
    missed, more = answer["missed_at_most"], answer["unsettled"]["more_rounds"]
    kind = "launches" if answer["unsettled"]["of"] else "rounds"
    settle = ""
    if more["estimate"] is not None:
        most = "more than can be named" if more["high"] is None else f"{more['high']:,}"
        settle = f" About {more['estimate']:,} more {kind} would settle it ({more['low']:,} to {most})."
    elif more["low"] is not None:
        settle = f" At least {more['low']:,} more {kind} are needed to settle it."
    bound = (
        ""
        if missed is None
        else f" None of the finalists that stand is more than {missed:.1%} better than the default."
    )
    return f"Not settled: {answer['unsettled']['why']}.{settle}{bound}"


def _failures(looks: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for one in looks:
        if one["failure"] and not one["refused"]:
            entry = found.setdefault(
                one["failure"], {"kind": one["failure"], "count": 0, "detail": one["detail"]}
            )
            entry["count"] += 1
    return sorted(found.values(), key=lambda entry: -entry["count"])


def _ledger(spent: Mapping[str, float]) -> list[dict[str, Any]]:
    total = spent.get("total") or 1.0
    return [
        {"phase": phase, "seconds": round(seconds), "share": f"{seconds / total:.0%}"}
        for phase, seconds in spent.items()
        if phase != "total"
    ]


def _answer(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    try:
        found: dict[str, Any] = json.loads(path.read_bytes())
    except ValueError as error:
        raise BrokenRunError(f"{path}: {error}", "servetune search ... --resume writes it again") from error
    return found
