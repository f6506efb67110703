"""Which price of a scenario a configuration pays."""

from __future__ import annotations

from bench.plan.scenario import Price, Scenario
from serving.config import ServingConfig


def price_for(scenario: Scenario, config: ServingConfig) -> Price | None:
    """The price given with the config's engine (and version), else the scenario's; None: unpriced."""
    for part in scenario.engines:
        same = part.engine == config.engine and part.version in (None, config.engine_version)
        if same and part.price is not None:
            return part.price
    return scenario.price
