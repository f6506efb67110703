"""Every scenario that ships loads, opens with its question and expands to something."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bench.plan.expand import expand
from bench.scenario import scenariofile

FOLDER = Path(__file__).parents[2] / "scenarios"
FILES = sorted(FOLDER.glob("*.yaml"))


def test_the_promised_scenarios_ship() -> None:
    assert {f.stem for f in FILES} >= {"quickstart", "demo", "h200-llama-8b", "l4-qwen-7b", "capacity"}


@pytest.mark.parametrize("file", FILES, ids=lambda f: f.stem)
def test_a_scenario_that_ships(file: Path) -> None:
    assert file.read_text().startswith("# Question: ")
    scenario = scenariofile.load(file)
    assert scenario.name == file.stem
    points, _ = expand(scenario, "cpu")
    assert points
    assert len({p.key for p in points}) == len(points)
    for source in (scenario.price, *(part.price for part in scenario.engines)):
        assert source is None or re.search(r"(price|range) .+ as listed by [\w-]+\.\w+", source.source), (
            "who lists it, of what"
        )
