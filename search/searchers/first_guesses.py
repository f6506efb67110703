"""Recipes: what an engineer of the field would try right after the default. Prior knowledge, nothing learned.

Serving is mostly bound by memory traffic, so that eight-bit weights, an eight-bit KV cache and more devices
are what most often pays (docs/replay.md says what this is worth on the reference grids). Each is one launch
early in the search; where it is wrong, the model learns so.
"""

from __future__ import annotations

from search.result import Settings, key_of
from search.space import Space, made
from serving.config import ROLES, Scalar, fields_where

EIGHT_BIT = {name: role.eight_bit for name, role in ROLES.items() if role.eight_bit}
"""By axis, the first of these that it has."""
(DEVICES,) = fields_where(lambda role: role.parallel)


def recipes(space: Space) -> list[Settings]:
    """Of the first engine: departures from its default, in the order to look at, without what rules drop."""
    base = space.default()
    engine = str(base["engine"])
    levels = {axis.name: axis.levels for axis in space.axes[engine]}

    def eight(name: str) -> dict[str, Scalar]:
        value = next((v for v in EIGHT_BIT[name] if v in levels.get(name, ())), None)
        return {} if value is None else {name: value}

    weights, cache = eight("quantization"), eight("kv_cache_dtype")
    counts = [v for v in levels.get(DEVICES, ()) if isinstance(v, int)]
    devices: dict[str, Scalar] = {DEVICES: max(counts)} if len(counts) > 1 else {}
    found: dict[str, Settings] = {}
    for change in (weights, {**weights, **cache}, {**weights, **devices}):
        settings = made(engine, {**base, **change})
        if change and key_of(settings) != key_of(base) and space.problem(settings) is None:
            found[key_of(settings)] = settings
    return list(found.values())
