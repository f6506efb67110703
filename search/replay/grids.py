"""Grid: every configuration of a space with what it did, recorded or simulated; what a replay looks into.

Compact form, a folder: `manifest.json` (axes, goal, constraints, where it is from) and `table.csv`, one line
for each repeat of a configuration (results/README.md). A run folder of `servetune bench` is one too.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from search.objective import Goal
from search.result import PHASES, Settings, key_of
from search.space import Axis, Space, made
from serving.errors import BrokenRunError, UserError

if TYPE_CHECKING:
    from bench.result import PointResult as Measured

SCHEMA = 1
KIND = "grid"


@dataclass(frozen=True)
class Cell:
    """One configuration. `values`: one a repeat, empty when it failed; `seconds`: of one full look, by phase.

    `violations` as in `search.result.TrialResult`, the mean over the repeats.
    """

    settings: Settings
    values: tuple[float, ...]
    violations: Mapping[str, float]
    failure: str | None
    seconds: Mapping[str, float]

    @property
    def value(self) -> float | None:
        """The truth, as far as it is known: the mean of the repeats."""
        return sum(self.values) / len(self.values) if self.values else None

    @property
    def feasible(self) -> bool:
        return self.failure is None and bool(self.values) and all(v <= 0 for v in self.violations.values())


@dataclass(frozen=True)
class Grid:
    """`about`: the manifest. `constraints`: as `search.objective.constraints` names them."""

    name: str
    goal: Goal
    space: Space
    constraints: tuple[str, ...]
    cells: Mapping[str, Cell]
    simulated: bool
    about: Mapping[str, Any]

    @cached_property
    def best(self) -> Cell:
        """The optimum. UserError when nothing is feasible."""
        found = [cell for cell in self.cells.values() if cell.feasible]
        if not found:
            raise UserError(f"{self.name}: no configuration keeps every promise", "another grid")
        return min(found, key=lambda c: self.goal.loss(c.value or math.inf))

    def regret(self, cell: Cell | None) -> float:
        """How much worse than the optimum, as a share of it; 1 for none, and for a broken promise."""
        if cell is None or not cell.feasible or cell.value is None:
            return 1.0
        best = self.best.value
        assert best is not None
        return max(0.0, min(1.0, -self.goal.gain(cell.value, best)))

    def counts(self) -> dict[str, int]:
        """Configurations by how they ended: feasible, breaks a promise, or the class of the failure."""
        found: dict[str, int] = {}
        for cell in self.cells.values():
            kind = cell.failure or ("feasible" if cell.feasible else "breaks_a_promise")
            found[kind] = found.get(kind, 0) + 1
        return found


def load(path: Path) -> Grid:
    """A compact grid, or a run folder whose engines' `grid` was measured whole or in part."""
    try:
        about = json.loads((path / "manifest.json").read_bytes())
    except FileNotFoundError as error:
        raise UserError(
            f"{path} has no manifest.json", "a results folder, or results/reference/sim-*"
        ) from error
    except ValueError as error:
        raise BrokenRunError(f"{path}/manifest.json: {error}") from error
    return _compact(path, about) if about.get("kind") == KIND else _recorded(path)


def write(grid: Grid, path: Path) -> None:
    """The compact form; the folder may exist."""
    path.mkdir(parents=True, exist_ok=True)
    engine = grid.space.engines[0]
    axes = [_axis_json(axis) for axis in grid.space.axes[engine]]
    about = {
        "schema": SCHEMA,
        "kind": KIND,
        "name": grid.name,
        "simulated": grid.simulated,
        **{k: v for k, v in grid.about.items() if k not in ("schema", "kind", "name", "simulated")},
        "goal": [f"{'minimize' if low else 'maximize'} {metric}" for metric, low in grid.goal.metrics],
        "constraints": list(grid.constraints),
        "engine": engine,
        "axes": axes,
        "configurations": len(grid.cells),
        "ended": grid.counts(),
    }
    (path / "manifest.json").write_text(json.dumps(about, indent=2) + "\n")
    names = [axis["name"] for axis in axes]
    promises = [name for name in grid.constraints if name != "runs"]
    with (path / "table.csv").open("w", newline="") as file:
        out = csv.writer(file, lineterminator="\n")
        out.writerow([*names, "failure", "value", *promises, *(f"{phase}_s" for phase in PHASES)])
        for cell in grid.cells.values():
            start = [_text(cell.settings.get(name)) for name in names] + [cell.failure or ""]
            kept = [_number(cell.violations.get(name)) for name in promises]
            took = [_number(cell.seconds.get(phase)) for phase in PHASES]
            for value in cell.values or (None,):
                out.writerow([*start, _number(value), *kept, *took])


def _compact(path: Path, about: Mapping[str, Any]) -> Grid:
    if about.get("schema") != SCHEMA:
        raise UserError(
            f"{path}: grid of schema {about.get('schema')}, this reads {SCHEMA}", "a newer servetune"
        )
    axes = tuple(Axis(**{**axis, "choices": tuple(axis["choices"])}) for axis in about["axes"])
    goal = Goal(tuple((text.split()[1], text.startswith("minimize ")) for text in about["goal"]))
    constraints, rows = tuple(about["constraints"]), dict[str, list[dict[str, str]]]()
    engine = about["engine"]
    settings: dict[str, Settings] = {}
    try:
        with (path / "table.csv").open(newline="") as file:
            for row in csv.DictReader(file):
                one = made(engine, {axis.name: _scalar(row[axis.name]) for axis in axes})
                settings[key_of(one)] = one
                rows.setdefault(key_of(one), []).append(row)
        cells = {key: _cell(settings[key], same, constraints) for key, same in rows.items()}
    except (OSError, KeyError, ValueError) as error:
        raise BrokenRunError(f"{path}/table.csv: {error!r}") from error
    space = _only(Space({engine: axes}), set(cells))
    return Grid(about["name"], goal, space, constraints, cells, bool(about["simulated"]), about)


def _cell(settings: Settings, rows: Sequence[Mapping[str, str]], constraints: Sequence[str]) -> Cell:
    first = rows[0]
    values = tuple(float(row["value"]) for row in rows if row["value"])
    missed = {name: float(first[name]) for name in constraints if name != "runs" and first[name]}
    took = {phase: float(first[f"{phase}_s"]) for phase in PHASES if first[f"{phase}_s"]}
    return Cell(settings, values, missed, first["failure"] or None, took)


@dataclass(frozen=True)
class Recorded(Space):
    """A space of which only the recorded configurations exist."""

    known: frozenset[str] = frozenset()

    def default(self, engine: str | None = None) -> Settings:
        """The engine's own, or what departs least from it among what was recorded."""
        own = super().default(engine)
        if key_of(own) in self.known:
            return own
        kept: list[Settings] = [json.loads(key) for key in sorted(self.known)]
        return min(kept, key=self.departures)

    def problem(self, settings: Settings) -> str | None:
        if key_of(settings) not in self.known:
            return "was not recorded"
        return super().problem(settings)


def _only(space: Space, known: set[str]) -> Recorded:
    return Recorded(space.axes, space.rules, space.fixed, frozenset(known))


def _recorded(path: Path) -> Grid:
    """From the points of a run: one cell for each configuration, one value for each repeat."""
    from bench.records.folder import RunFolder
    from bench.scenario import scenariofile
    from search.objective import constraints, judged, measured

    folder = RunFolder.open(path)
    scenario = scenariofile.load(path / "scenario.yaml")
    goal, space = Goal.of(scenario), Space.of(scenario)
    if len(space.engines) > 1:
        raise UserError(f"{path}: a grid of several engines cannot be replayed yet", "one engine a run")
    engine = space.engines[0]
    by_config: dict[str, dict[int, list[Measured]]] = {}
    settings: dict[str, Settings] = {}
    points = measured(folder, scenario, sorted(folder.done()))
    for point in points:
        config = point.run.point.config
        one = made(engine, {axis.name: getattr(config, axis.name) for axis in space.axes[engine]})
        settings[key_of(one)] = one
        by_config.setdefault(key_of(one), {}).setdefault(point.run.point.repeat, []).append(point)
    if not by_config:
        raise UserError(f"{path} holds no measured point", "servetune bench SCENARIO")
    cells = {}
    for key, repeats in by_config.items():
        looks = [
            judged(scenario, goal, settings[key], "full", same, _took(same)) for same in repeats.values()
        ]
        good = [look for look in looks if look.failure is None]
        values = tuple(look.value for look in good if look.value is not None)
        names = good[0].violations if good else ()
        missed = {name: sum(look.violations[name] for look in good) / len(good) for name in names}
        failure = None if good else looks[0].failure
        cells[key] = Cell(settings[key], values, missed, failure, (good or looks)[0].seconds)
    named = constraints(scenario.model_copy(update={"accuracy": None}))
    simulated = any(point.run.simulated for point in points)
    return Grid(scenario.name, goal, _only(space, set(cells)), named, cells, simulated, folder.manifest)


def _took(points: Sequence[Measured]) -> dict[str, float]:
    """Device seconds of one repeat: its launch, and every load to its last event."""
    measure = sum(
        max([p.run.load_end_s or 0.0, *(r.last_s for r in p.run.records if r.last_s is not None)])
        for p in points
    )
    if any(p.run.failure for p in points):
        return {"waste": (points[0].run.ready_s or 0.0) + measure}
    return {"launch": points[0].run.ready_s or 0.0, "measure": measure}


def _axis_json(axis: Axis) -> dict[str, Any]:
    return {**asdict(axis), "choices": list(axis.choices)}


def _text(value: object) -> str:
    return "" if value is None else json.dumps(value)


def _scalar(text: str) -> Any:
    return json.loads(text) if text else None


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"
