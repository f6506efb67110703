"""Target: where a scenario would run, and what is known of the device and the model."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from bench.scenario.model import Model
from bench.telemetry.gpus import gpus_visible
from serving.config import Device, ServingConfig
from serving.costmodel import hardware, shapes
from serving.costmodel.hardware import Hardware
from serving.costmodel.shapes import Shape
from serving.errors import UserError


@dataclass(frozen=True, slots=True)
class MemoryCalibration:
    """How earlier launches compared: memory used beside weights and KV cache, measured / predicted.

    Made by `bench.plan.feasibility.calibrate`; `low` and `high` are the extremes seen.
    """

    launches: int = 0
    low: float = 1.0
    high: float = 1.0


UNCALIBRATED = MemoryCalibration()


@dataclass(frozen=True)
class Target:
    """The device and the model. `hardware` or `shape` None: not known, so nothing is refused for it.

    supposed: a GPU that need not be here; nothing of this machine counts.
    cards: GPUs that an engine started here can use; None: not known
    """

    device: Device
    hardware: Hardware | None
    shape: Shape | None
    calibration: MemoryCalibration = UNCALIBRATED
    supposed: bool = False
    cards: int | None = None


def target_of(device: Device | None, model: Model) -> Target:
    """This machine (its first GPU where there is one, else the CPU) and the scenario's model."""

    shape = shapes.find(model.shape) or shapes.of_folder(Path(model.path))[0]
    gpus = gpus_visible() if device != "cpu" else []
    if gpus:
        known = hardware.of_driver_name(gpus[0].name, gpus[0].memory_bytes)
        return Target("cuda", known, shape, cards=_usable(len(gpus), os.environ.get("CUDA_VISIBLE_DEVICES")))
    if device == "cuda":
        return Target("cuda", None, shape)
    import psutil

    return Target("cpu", hardware.cpu(psutil.virtual_memory().total), shape)


def _usable(cards: int, visible: str | None) -> int | None:
    """Of the driver's cards, those that CUDA_VISIBLE_DEVICES leaves; MIG slices are no cards: not known."""
    if visible is None:
        return cards
    names = [name.strip() for name in visible.split(",") if name.strip()]
    if any(name.startswith("MIG") for name in names):
        return None
    return min(cards, len(names))


def supposing(gpu: str, model: Model) -> Target:
    """Such a GPU (a row of `serving.costmodel.hardware`), wherever it is. UserError where its figures are not
    known.
    """
    found = hardware.find(gpu)
    if found is None or found.device != "cuda":
        near = hardware.nearest(gpu)
        known = ", ".join(row.name for row in hardware.HARDWARE.values() if row.device == "cuda")
        raise UserError(f"no figures of a GPU {gpu!r}; known: {known}", f"--gpu {near or 'h200'}")
    shape = shapes.find(model.shape) or shapes.of_folder(Path(model.path))[0]
    return Target("cuda", found, shape, supposed=True)


def recorded(manifest: Mapping[str, Any], model: Model) -> Target:
    """The device and model of a run, as its manifest has them: a report may be made on another machine."""
    shape = shapes.find(model.shape) or shapes.of_folder(Path(model.path))[0]
    gpus = (manifest.get("environment") or {}).get("gpus") or []
    if manifest.get("device") != "cuda" or not gpus:
        return Target("cpu", None, shape)
    return Target("cuda", hardware.of_driver_name(gpus[0]["name"], gpus[0]["memory_bytes"]), shape)


def place(config: ServingConfig, target: Target) -> tuple[Hardware | None, Shape | None]:
    """The device and shape that count for this config: the simulated engine brings its own."""
    if config.engine != "sim":
        return target.hardware, target.shape
    named = config.sim.get("shape")
    shape = _shape(str(named)) if named else target.shape or _shape(config.model)
    return _device(str(config.sim.get("gpu", "h200"))), shape


@lru_cache(maxsize=64)
def _device(name: str) -> Hardware | None:
    return hardware.find(name)


@lru_cache(maxsize=64)
def _shape(name: str) -> Shape | None:
    return shapes.find(name)
