"""SearchRequest: what the command line says in place of the scenario."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from search.study import SAMPLERS
from serving.errors import UserError
from serving.units import seconds

if TYPE_CHECKING:
    from bench.scenario.model import Scenario


@dataclass(frozen=True)
class SearchRequest:
    """None: as the scenario.

    budget   device time, such as `8h`;  usd  money, at the scenario's price
    trials   configurations at most;  rounds  of the finals at most
    storage  where Optuna keeps its trials;  ray  address of a cluster, or `local`
    """

    budget: str | None = None
    trials: int | None = None
    usd: float | None = None
    sampler: str | None = None
    storage: str | None = None
    ray: str | None = None
    rounds: int | None = None

    def over(self, scenario: Scenario) -> Scenario:
        """The scenario with what was asked for in its place. UserError where the two do not go together."""
        changed: dict[str, Any] = {}
        if self.budget is not None:
            try:
                changed["budget_s"] = seconds(self.budget)
            except ValueError as error:
                raise UserError(f"--budget: {error}", "--budget 8h") from error
        changed |= {
            name: value
            for name, value in (
                ("trials", self.trials),
                ("budget_usd", self.usd),
                ("sampler", self.sampler),
                ("rounds", self.rounds),
            )
            if value is not None
        }
        named = changed.keys() | scenario.search.model_fields_set
        if len(scenario.search.goal) > 1 and "sampler" not in named:
            changed["sampler"] = "tpe"  # the surrogate models one goal
        search = scenario.search.model_copy(update=changed)
        if search.sampler not in SAMPLERS:
            raise UserError(f"sampler {search.sampler!r}; there are: {', '.join(SAMPLERS)}", "--sampler tpe")
        if search.sampler == "surrogate" and len(search.goal) > 1:
            raise UserError("sampler surrogate has one goal; the scenario names several", "--sampler tpe")
        if search.budget_usd is not None and scenario.price is None:
            raise UserError("a budget in money needs a price", "add `price:` to the scenario")
        return scenario.model_copy(update={"search": search})
