"""Explain: which settings mattered, which promise bound, and what each setting of the winner did.

The effect of a setting is the share of the variance of log(value) that its levels explain (omega squared,
Hays 1963; main effects, other settings ignored), with a bootstrap interval over the trials. A search does
not try settings evenly, so the interval is wide; where it says little, so does this.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from search.objective import Goal
from search.outcome import Outcome, Settings, key_of
from search.space import Space

LEAST_TRIALS = 10
RESAMPLES = 400
WIDE = 0.6
"""An interval of an effect that is wider says nothing."""
QUANTILES = (0.05, 0.95)
UNSET = "default"


def explained(
    space: Space, goal: Goal, constraints: Sequence[str], trials: Sequence[Outcome], winner: Settings | None
) -> dict[str, Any]:
    """For study.json. `trials`: the last look of each."""
    return {
        "trials": len(trials),
        "settings": effects(space, trials),
        "promises": [_promise(name, goal, trials) for name in constraints],
        "undetermined": [one for name in constraints if (one := _undetermined(name, trials))],
        "winner": [] if winner is None else paired(space, goal, trials, winner),
    }


def effects(space: Space, trials: Sequence[Outcome], seed: int = 0) -> list[dict[str, Any]]:
    """Of each setting, the strongest first. `told` False: too few trials, one level only, or too wide."""
    valued = [o for o in trials if o.value is not None and o.value > 0]
    found: list[dict[str, Any]] = []
    for name in dict.fromkeys(axis.name for axes in space.axes.values() for axis in axes):
        levels = [str(o.config.get(name, UNSET)) for o in valued]
        logs = np.log([o.value or 1.0 for o in valued])
        effect = omega_squared(levels, logs)
        if effect is None:
            found.append({"setting": name, "effect": None, "low": None, "high": None, "told": False})
            continue
        source, drawn = np.random.default_rng(seed), []
        for _ in range(RESAMPLES):
            chosen = source.integers(0, len(valued), len(valued))
            again = omega_squared([levels[i] for i in chosen], logs[chosen])
            if again is not None:
                drawn.append(again)
        low, high = (float(v) for v in np.quantile(drawn, QUANTILES)) if drawn else (0.0, 1.0)
        told = len(valued) >= LEAST_TRIALS and high - low <= WIDE
        found.append({"setting": name, "effect": effect, "low": low, "high": high, "told": told})
    return sorted(found, key=lambda one: -(one["effect"] or 0.0))


def omega_squared(levels: Sequence[str], values: np.ndarray) -> float | None:
    """Share of the variance between levels, without what chance would put there; None: not to be told."""
    kinds, count = sorted(set(levels)), len(levels)
    if len(kinds) < 2 or count <= len(kinds) + 1:
        return None
    groups = [values[[level == kind for level in levels]] for kind in kinds]
    total = float(((values - values.mean()) ** 2).sum())
    between = float(sum(len(g) * (g.mean() - values.mean()) ** 2 for g in groups))
    if total <= 0:
        return None
    noise = (total - between) / (count - len(kinds))
    return max(0.0, min(1.0, (between - (len(kinds) - 1) * noise) / (total + noise)))


def _promise(name: str, goal: Goal, trials: Sequence[Outcome]) -> dict[str, Any]:
    """How many trials broke it, how many broke nothing else, and the best value among those."""
    if name == "runs":
        broke = [o for o in trials if o.failure is not None]
        return {"promise": name, "broken": len(broke), "alone": len(broke), "best_without": None}
    broke = [o for o in trials if o.failure is None and o.violations.get(name, 0.0) > 0]
    alone = [o for o in broke if all(v <= 0 for n, v in o.violations.items() if n != name)]
    values = [o.value for o in alone if o.value is not None]
    best = min(values, key=goal.loss, default=None)
    return {"promise": name, "broken": len(broke), "alone": len(alone), "best_without": best}


def _undetermined(name: str, trials: Sequence[Outcome]) -> dict[str, Any] | None:
    """In how many full looks this promise could not be told, and why in the last; None: in none.

    A short look leaves promises open by design.
    """
    why = [o.undetermined[name] for o in trials if o.fidelity == "full" and name in o.undetermined]
    return {"promise": name, "looks": len(why), "why": why[-1]} if why else None


def paired(space: Space, goal: Goal, trials: Sequence[Outcome], winner: Settings) -> list[dict[str, Any]]:
    """Each setting in which the winner departs: the gain where a trial without it was seen, else null."""
    by_key: Mapping[str, Outcome] = {key_of(o.config): o for o in trials if o.value is not None}
    mine, base = by_key.get(key_of(winner)), space.default(str(winner["engine"]))
    found = []
    for name, value in winner.items():
        if name == "engine" or base.get(name) == value:
            continue
        without = {k: v for k, v in winner.items() if k != name} | (
            {name: base[name]} if name in base else {}
        )
        other = by_key.get(key_of(without))
        gain = None
        if (
            mine
            and other
            and mine.value is not None
            and other.value is not None
            and other.fidelity == mine.fidelity
        ):
            gain = goal.gain(mine.value, other.value)
        found.append({"setting": name, "value": value, "gain_over_without": gain})
    return found


def lines(told: Mapping[str, Any]) -> list[str]:
    """For the terminal: what mattered and what bound, where it can be told."""
    clear = [s for s in told["settings"] if s["told"] and s["low"] > 0]
    out = []
    if clear:
        out.append("what mattered: " + ", ".join(f"{s['setting']} {s['effect']:.0%}" for s in clear[:3]))
    elif told["trials"]:
        out.append(f"which setting mattered cannot be told from {told['trials']} trials")
    bound = [p for p in told["promises"] if p["alone"]]
    if bound:
        out.append("what bound: " + ", ".join(f"{p['promise']} in {p['alone']}" for p in bound[:3]))
    out += [
        f"undetermined: {p['promise']} in {p['looks']} full looks ({p['why']})"
        for p in told.get("undetermined", ())
    ]
    return out
