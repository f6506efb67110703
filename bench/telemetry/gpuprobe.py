"""Watches the GPUs of one engine: readings of each card, and who else is on it."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from bench.records.model import Sample
from bench.telemetry.host import Tree
from bench.telemetry.nvml import Nvml

_update_periods_s: dict[Any, float | None] = {}
"""By card: how often its energy counter steps does not change, and finding out takes up to a second."""


class GpuProbe:
    """Samples `gpu<i>_*` for the cards the engine is on (`gpus`, else those its processes are seen on).

    `energy_j` is the driver's counter as it stands: only differences mean something. Where the process
    ids do not match ours (a container), memory per process and other processes are left out.
    """

    def __init__(self, nvml: Nvml, tree: Tree, gpus: Sequence[int] | None = None) -> None:
        self.nvml, self.tree = nvml, tree
        self.notes: list[str] = []
        handles = nvml.handles()
        self.handles = {i: handle for i, handle in handles.items() if gpus is None or i in gpus}
        for index in sorted(set(gpus or ()) - set(handles)):
            self.notes.append(f"gpu{index} not available: the driver shows {sorted(handles) or 'no GPU'}")
        if gpus is None:
            self._keep_the_engines()
        if not self.handles:
            self.notes.append("GPU series not available: the driver shows no GPU")
        self._periods = self._update_periods()
        self._energy: dict[int, float] = {}
        self._noted: set[str] = set()

    def read(self, last: bool = False) -> list[Sample]:
        """One reading of every card; with the `last` one what the driver did not tell is noted."""
        found: list[Sample] = []
        for index, handle in self.handles.items():
            now = time.monotonic()
            values = self.nvml.read(index, handle)
            values |= self._processes(index, handle)
            self._watch_reset(index, values.get("energy_j"))
            period = self._periods.pop(index, None)
            if period is not None:
                values["energy_update_period_s"] = period
            found += [Sample(now, f"gpu{index}_{name}", value) for name, value in values.items()]
        if last:
            for name, why in sorted(self.nvml.missing.items()):
                if not name.endswith("_mps_processes"):
                    self._note(f"{name} not available: {why}")
        return found

    def _keep_the_engines(self) -> None:
        seen = {
            index
            for index, handle in self.handles.items()
            if self.tree.pids & (self.nvml.processes(index, handle) or {}).keys()
        }
        if seen:
            self.handles = {index: self.handles[index] for index in sorted(seen)}
        elif len(self.handles) > 1:
            self.notes.append(
                f"the driver shows the engine's processes on no GPU: all {len(self.handles)} are watched"
            )

    def _update_periods(self) -> dict[int, float]:
        ids = {i: self.nvml.ask(f"gpu{i}_uuid", "nvmlDeviceGetUUID", h) or i for i, h in self.handles.items()}
        new = [index for index, card in ids.items() if card not in _update_periods_s]
        for index, period in zip(
            new, self.nvml.energy_update_periods_s([self.handles[i] for i in new]), strict=True
        ):
            _update_periods_s[ids[index]] = period
        return {i: period for i, card in ids.items() if (period := _update_periods_s[card]) is not None}

    def _processes(self, index: int, handle: Any) -> dict[str, float]:
        """Memory of the engine's processes and the number of others, where both can be told apart."""
        on_card = self.nvml.processes(index, handle)
        if on_card is None:
            return {}
        ours = on_card.keys() & self.tree.pids
        if on_card and not ours and not _known_here(on_card):
            self._note(
                f"gpu{index}_memory_bytes and gpu{index}_other_processes not available: the driver lists "
                "processes of another pid namespace (in a container: run it with --pid=host)"
            )
            return {}
        found = {"other_processes": float(len(on_card.keys() - ours))}
        sizes = [on_card[pid] for pid in ours]
        if None in sizes:
            self._note(f"gpu{index}_memory_bytes not available: the driver hides the memory of processes")
        elif sizes:
            found["memory_bytes"] = float(sum(size or 0 for size in sizes))
        return found

    def _watch_reset(self, index: int, energy_j: float | None) -> None:
        if energy_j is None:
            return
        if energy_j < self._energy.get(index, 0.0):
            self._note(f"gpu{index}_energy_j went back: the driver was reloaded, the energy is unknown")
        self._energy[index] = energy_j

    def _note(self, text: str) -> None:
        if text not in self._noted:
            self._noted.add(text)
            self.notes.append(text)


def _known_here(pids: Collection[int]) -> bool:
    """Whether any of these processes exists in our own pid namespace."""
    return any(Path(f"/proc/{pid}").exists() for pid in pids)
