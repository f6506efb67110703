"""Which price of a scenario a configuration pays, and whether it can be told what that comes to."""

from __future__ import annotations

from collections.abc import Iterable

from bench.scenario.model import Price, Scenario
from serving import devices
from serving.config import ServingConfig
from serving.engines import engine
from serving.errors import UserError


def price_for(scenario: Scenario, config: ServingConfig) -> Price | None:
    """The price given with the config's engine (and version), else the scenario's; None: unpriced."""
    for part in scenario.engines:
        same = part.engine == config.engine and part.version in (None, config.engine_version)
        if same and part.price is not None:
            return part.price
    return scenario.price


def check(scenario: Scenario, configs: Iterable[ServingConfig]) -> None:
    """UserError where a price is per GPU and a config's GPUs cannot be counted: any cost would be made up."""
    for config in configs:
        price = price_for(scenario, config)
        if price is None or price.per == "machine":
            continue
        if config.device == "cpu" and not engine(config.engine).simulated and config.engine != "endpoint":
            raise UserError(
                f"{scenario.file}: the price is per: gpu, and {config.engine} runs on the CPU here",
                "price the machine: per: machine",
            )
        if devices.count(config) is None:
            raise UserError(
                f"{scenario.file}: the price is per: gpu, and nobody knows on how many GPUs this runs: "
                f"{config.label}",
                "settings: {gpus: 8} states them for a server that runs elsewhere; else per: machine, with "
                "the price of all of it",
            )
