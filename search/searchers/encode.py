"""Encode: settings as points, so that what is near in effect is near in number.

Ordered numbers become 0..1, by factors where they span more than EIGHTFOLD. "Left to the engine" has a column
of its own, since nobody knows what number it is. Other values are corners, all 1 apart.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from search.result import Settings
from search.space import Space
from serving.config import Scalar

EIGHTFOLD = 8.0
EncodedRow = tuple[float, ...]


class Encoding:
    """`points(settings)` is (n, columns); `groups[column]` numbers the length that the column is scaled by.

    Axes of one name in several engines share their columns: what helps one often helps another.
    """

    def __init__(self, space: Space) -> None:
        levels: dict[str, list[Scalar]] = {}
        if len(space.engines) > 1:
            levels["engine"] = list(space.engines)
        for engine in space.engines:
            for axis in space.axes[engine]:
                levels.setdefault(axis.name, []).extend(axis.levels)
        groups: list[int] = []
        self._axes: list[_Numbers | _Corners] = []
        self._names = list(levels)
        for found in levels.values():
            numbers = sorted({v for v in found if isinstance(v, int | float) and not isinstance(v, bool)})
            named = [v for v in dict.fromkeys(found) if v is not None]
            one: _Numbers | _Corners
            if len(numbers) == len(named) and len(numbers) > 1:
                one = _Numbers(numbers)
            else:
                one = _Corners(list(dict.fromkeys([*named, None])))
            first = groups[-1] + 1 if groups else 0
            groups += [first + number for number in one.groups]
            self._axes.append(one)
        self.groups = np.array(groups)

    def points(self, settings: Sequence[Settings]) -> np.ndarray:
        rows = [
            [x for name, axis in zip(self._names, self._axes, strict=True) for x in axis.row(one.get(name))]
            for one in settings
        ]
        return np.array(rows, dtype=float).reshape(len(settings), len(self.groups))


class _Numbers:
    """Two columns: where on the scale, and whether it was left to the engine (then in the middle)."""

    groups = (0, 1)

    def __init__(self, numbers: Sequence[float]) -> None:
        self._log = numbers[0] > 0 and numbers[-1] / numbers[0] >= EIGHTFOLD
        self._low, self._high = self._scale(numbers[0]), self._scale(numbers[-1])

    def row(self, value: Scalar) -> EncodedRow:
        if value is None or isinstance(value, str | bool):
            return 0.5, 1.0
        return (self._scale(value) - self._low) / (self._high - self._low), 0.0

    def _scale(self, value: float) -> float:
        return math.log2(value) if self._log else float(value)


class _Corners:
    def __init__(self, values: Sequence[Scalar]) -> None:
        self._place = {value: number for number, value in enumerate(values)}
        self.groups = (0,) * len(values)

    def row(self, value: Scalar) -> EncodedRow:
        at = self._place.get(value)
        return tuple(math.sqrt(0.5) if number == at else 0.0 for number in range(len(self.groups)))
