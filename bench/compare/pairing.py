"""Which runs of A and B are the same experiment."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from bench.records.model import Run


@dataclass(frozen=True)
class Pairing:
    """Runs of the same point on both sides; `label` names the point by what varies among the pairs."""

    label: str
    a: tuple[Run, ...]
    b: tuple[Run, ...]


def pair(runs_a: Sequence[Run], runs_b: Sequence[Run]) -> tuple[list[Pairing], list[str]]:
    """Points of both sides by content, without repeat, seed and the settings in which A and B differ.

    Also what has no partner, in words. With one config a side, the configs may differ in anything.
    """
    ignored = _differing(runs_a, runs_b)
    grouped = [_grouped(runs, ignored) for runs in (runs_a, runs_b)]
    shared = [key for key in grouped[0] if key in grouped[1]]
    varying = _varying(shared)
    pairs, left = [], []
    for key in shared:
        a, b = grouped[0][key], grouped[1][key]
        label = " ".join(f"{name}={value}" for name, value in key if name in varying) or "all"
        crowded = [side for side, runs in (("A", a), ("B", b)) if len({r.point.config.key for r in runs}) > 1]
        if crowded:
            left.append(f"{label}: {' and '.join(crowded)} measured it under several settings: not compared")
        else:
            pairs.append(Pairing(label, tuple(a), tuple(b)))
    for side, own, other in (("A", grouped[0], grouped[1]), ("B", grouped[1], grouped[0])):
        alone = sum(key not in other for key in own)
        if alone:
            left.append(f"{alone} point{'s' if alone > 1 else ''} only in {side}: not compared")
    return sorted(pairs, key=lambda p: p.label), left


Key = tuple[tuple[str, str], ...]


def _settings(run: Run) -> dict[str, str]:
    config = {name: str(value) for name, value in run.point.config.settings.items()}
    load = {
        f.name: str(getattr(run.point.load, f.name)) for f in run.point.load.__dataclass_fields__.values()
    }
    return config | load


def _differing(runs_a: Sequence[Run], runs_b: Sequence[Run]) -> set[str]:
    """Config settings whose values are not the same set on both sides."""
    sides = [
        {r.point.config.key: r.point.config.settings for r in runs}.values() for runs in (runs_a, runs_b)
    ]
    names = {name for side in sides for settings in side for name in settings}

    def values(side: int, name: str) -> set[str]:
        return {str(settings.get(name)) for settings in sides[side]}

    return {name for name in names if values(0, name) != values(1, name)}


def _grouped(runs: Sequence[Run], ignored: set[str]) -> dict[Key, list[Run]]:
    out: dict[Key, list[Run]] = {}
    for run in runs:
        kept = tuple(sorted((k, v) for k, v in _settings(run).items() if k not in ignored))
        out.setdefault(kept, []).append(run)
    return out


def _varying(keys: Sequence[Key]) -> set[str]:
    seen: Counter[tuple[str, str]] = Counter(item for key in keys for item in key)
    return {name for (name, _), count in seen.items() if count < len(keys)}
