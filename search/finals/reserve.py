"""Reserve: device seconds that the finals take, by the full looks so far, and how many may stand in them.

A final is LEAST_ROUNDS launches of the baseline and of each finalist at the full load, a certificate of
each, and one launch on other loads of the winner and of the baseline. Short looks and failed launches
cost less than these and say nothing of them.
"""

from __future__ import annotations

from collections.abc import Sequence

from search.budget import full_costs
from search.finals.finalists import ranked
from search.finals.finals import Finals
from search.result import Settings, TrialResult, key_of

SHARE = 0.6
"""Of a budget in time or money, at most so much for the finals: where they cost more, fewer stand in them."""


def reserve_s(finals: Finals, history: Sequence[TrialResult]) -> float:
    """What is to be kept back for the finals; 0 without a limit in time or money.

    Where all of it is more than SHARE of the budget: for fewer finalists, then without the other loads. Three
    rounds of one finalist are kept back in any case, for less is no answer.
    """
    whole = finals.budget.whole_s()
    if whole == 0:
        return 0.0
    held_out = certificate_s(finals, history)
    rounds = [rounds_s(finals, history, finalists, held_out) for finalists in range(finals.finalists, 0, -1)]
    stress = stress_s(finals, history)
    wanted = [*(one + stress for one in rounds), *rounds]
    return next((one for one in wanted if one <= whole * SHARE), rounds[-1])


def rounds_s(finals: Finals, history: Sequence[TrialResult], finalists: int, held_out_s: float) -> float:
    """Rounds and certificates of so many finalists, less what is measured. 0: no full look to tell from."""
    if not full_costs(history):
        return 0.0
    base, *line = ranked(finals.space, finals.goal, history)
    named = line[:finalists]
    standing: list[Settings | None] = [base, *named, *[None] * (finalists - len(named))]
    return sum(remaining_s(finals, history, one, held_out_s) for one in standing)


def remaining_s(
    finals: Finals, history: Sequence[TrialResult], settings: Settings | None, held_out_s: float
) -> float:
    """Rounds and certificate of one that has still to be measured; None: of one that is not known yet."""
    costs = full_costs(history)
    usual = sum(costs.values()) / len(costs) if costs else 0.0
    key = None if settings is None else key_of(settings)
    each = usual if key is None else costs.get(key, usual)
    held = sum(o.fidelity == "confirm" and key_of(o.config) == key for o in history)
    return max(0, finals.least_rounds - held) * each + (0.0 if held else held_out_s)


def certificate_s(finals: Finals, history: Sequence[TrialResult]) -> float:
    """Held-out items of one finalist, by the baseline's full look, which alone is asked everything itself."""
    base = key_of(finals.space.default())
    mine = [o for o in history if o.fidelity == "full" and o.failure is None]
    full = next((o for o in mine if key_of(o.config) == base), mine[0] if mine else None)
    return finals.evaluator.certificate_s(full) if full else 0.0


def stress_s(finals: Finals, history: Sequence[TrialResult]) -> float:
    """Baseline and winner on other loads, unless that was done; the best so far in place of the winner."""
    base, *line = ranked(finals.space, finals.goal, history)
    last = {key_of(o.config): o for o in history if o.fidelity == "full" and o.failure is None}
    done = {key_of(o.config) for o in history if o.fidelity == "stress"}
    asked = [last.get(key_of(base)), next((last[key_of(one)] for one in line), None)]
    usual = next((one for one in asked if one is not None), None)
    if usual is None:
        return 0.0
    left = [one or usual for one in asked][: max(0, 2 - len(done))]
    return sum(finals.evaluator.stress_s(one) for one in left)
