"""Races of searchers in figures: regret by launch and by device minute, and who is behind whom."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from search.replay.contest import Race
    from search.replay.grids import Grid


END = 0.05
"""Of the space: after so much of it the finalists are measured again."""


CLOSE = 0.01
"""Regret at which a configuration counts as found."""


AT = (0.005, 0.01, 0.02, 0.03, 0.05)
"""Shares of the space after which the table shows regret."""


def brief(told: dict[str, Any]) -> dict[str, Any]:
    """What a script asks first of one grid: regret is the median after each launch, as a share."""
    return {
        "grid": told["grid"],
        "size": told["configurations"],
        "searchers": [
            {"name": name, "regret": of["regret"]["median"], "launches_to_1pct": of["launches_to_1_percent"]}
            for name, of in told["samplers"].items()
        ],
    }


def about(grid: Grid, seeds: int, launches: int) -> dict[str, Any]:
    return {
        "grid": grid.name,
        "simulated": grid.simulated,
        "goal": grid.goal.metric,
        "configurations": len(grid.cells),
        "ended": grid.counts(),
        "optimum": {"value": grid.best.value, "settings": dict(grid.best.settings)},
        "within_1_percent": sum(grid.regret(c) <= CLOSE for c in grid.cells.values()),
        "seeds": seeds,
        "launches": launches,
    }


def curves(races: list[Race], worthwhile: float) -> dict[str, Any]:
    """Of one sampler: regret after each launch, minutes to CLOSE, and how the early stop would have done."""
    import numpy as np

    longest = max(len(race.found) for race in races)
    found, held, minutes = (
        np.array([(*one, *[one[-1]] * (longest - len(one))) for one in ([getattr(r, k) for r in races])])
        for k in ("found", "held", "minutes")
    )
    reached = np.where((found <= CLOSE).any(1), (found <= CLOSE).argmax(1), -1)
    launch = np.where(reached >= 0, reached + 1.0, np.inf)
    spent = np.where(reached >= 0, minutes[np.arange(len(races)), reached], np.inf)
    grid_minutes = np.linspace(0, float(np.median(minutes[:, -1])), 41)[1:]
    by_minute = [
        [float(one[np.searchsorted(at, until, "right") - 1]) if at[0] <= until else 1.0
         for one, at in zip(found, minutes, strict=True)]
        for until in grid_minutes
    ]  # fmt: skip
    stops = [race for race in races if race.stopped is not None]
    lost = [race.found[race.stopped - 1] - race.found[-1] for race in stops if race.stopped]
    return {
        "regret": {"median": found_at(found, 0.5), "mean": [float(x) for x in found.mean(0)],
                   "p90": found_at(found, 0.9)},
        "regret_of_finalists": {"median": found_at(held, 0.5), "p90": found_at(held, 0.9)},
        "within_1_percent": [float(x) for x in (found <= CLOSE).mean(0)],
        "regret_by_minute": {
            "minutes": [float(m) for m in grid_minutes],
            "median": [float(np.quantile(one, 0.5)) for one in by_minute],
            "p90": [float(np.quantile(one, 0.9)) for one in by_minute],
        },
        "launches_to_1_percent": middle_and_tail(launch),
        "minutes_to_1_percent": middle_and_tail(spent),
        "early_stop": {
            "stopped": len(stops) / len(races),
            "after_launch_median": float(np.median([race.stopped or 0 for race in stops])) if stops else None,
            "lost_more_than_worthwhile": sum(x > worthwhile for x in lost) / len(races),
            "lost_p90": float(np.quantile(lost, 0.9)) if lost else None,
        },
        "crowned": {
            **quantiles([race.answer for race in races]),
            "verdicts": {v: sum(r.verdict == v for r in races) / len(races)
                         for v in sorted({r.verdict for r in races})},
        },
        "proposal_s": sum(r.cpu_s for r in races) / sum(len(r.found) for r in races),
    }  # fmt: skip


def behind(ours: dict[str, Any], theirs: dict[str, Any]) -> dict[str, list[int]]:
    """Launch counts at which the first has the larger regret, in the median and in the mean."""
    first, other = ours["regret"], theirs["regret"]
    return {
        what: [n for n, (a, b) in enumerate(zip(first[what], other[what], strict=False), 1) if a > b + 1e-9]
        for what in ("median", "mean")
    }


def middle_and_tail(values: Any) -> dict[str, float]:
    """Of values that may be infinite: nothing is interpolated."""
    import numpy as np

    return {name: float(np.quantile(values, q, method="higher")) for name, q in (("p50", 0.5), ("p90", 0.9))}


def found_at(regret: Any, share: float) -> list[float]:
    import numpy as np

    return [float(x) for x in np.quantile(regret, share, axis=0)]


def quantiles(values: list[float]) -> dict[str, float]:
    import numpy as np

    return {
        "median": float(np.median(values)),
        "p90": float(np.quantile(values, 0.9)),
        "within_1_percent": float(np.mean(np.array(values) <= CLOSE)),
    }
