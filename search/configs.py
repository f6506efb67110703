"""Configs: what a search would launch for its settings."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.plan.target import Target
from bench.scenario.scenariofile import quantity
from search.result import Settings
from search.space import names
from serving.config import ServingConfig

if TYPE_CHECKING:
    from bench.scenario.model import Scenario


def config_of(scenario: Scenario, target: Target, settings: Settings) -> ServingConfig:
    """What a search would launch. pydantic's ValidationError when a value is not one of the setting."""
    part = scenario.engines[names(scenario).index(str(settings["engine"]))]
    chosen = {k: v for k, v in settings.items() if k != "engine"}
    values = {key: quantity(key, value) for key, value in {**part.settings, **chosen}.items()}
    model = scenario.model
    return ServingConfig.model_validate(
        {
            "engine": part.engine,
            "engine_version": part.version,
            "device": target.device,
            "model": model.path,
            "revision": model.revision,
            "tokenizer": model.tokenizer,
            "checkpoint": model.checkpoints.get(values.get("quantization", "none")),
            **values,
        }
    )
