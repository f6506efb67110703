"""The answer to a scenario's question in sentences: the best of each job, against what, with what doubt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bench.accuracy.verdict import Floor
from bench.metrics import utilization
from servetune.report import labels
from servetune.report.ranking import Candidate, Job, gain, push
from servetune.report.scorecard_page import settling


@dataclass(frozen=True)
class Best:
    """Of one job: one `headline`, what it is held `against`, and the `caveats` to read with it."""

    job: Job
    headline: str
    against: tuple[str, ...]
    caveats: tuple[str, ...]


def answers(jobs: Sequence[Job], names: Sequence[str]) -> list[Best]:
    """`names`: the settings by which candidates are told apart."""
    return [answer(job, names) for job in jobs]


def answer(job: Job, names: Sequence[str]) -> Best:
    best = job.best
    if best is None:
        return Best(job, _nothing(job), (), ())
    value = labels.number(best.value(job.objective.metric))
    what = (
        f"{job.objective.currency} per million good output tokens" if job.objective.currency else "tokens/s"
    )
    simulated = "SIMULATED: " if best.simulated else ""
    best_of = "best that may be believed" if job.doubtful_winner else "best"
    headline = f"{simulated}{best_of}: {_name(best, names)} at {push(best.load)}: {value} {what}"
    return Best(job, headline, tuple(_against(job, best, names)), tuple(_caveats(job, best, names)))


def everywhere(jobs: Sequence[Job]) -> Candidate | None:
    """The best of the first job when its config is the best of every job; None otherwise or with one job."""
    bests = [job.best for job in jobs]
    keys = {best.config.key if best else None for best in bests}
    return bests[0] if len(bests) > 1 and len(keys) == 1 else None


def _name(candidate: Candidate, names: Sequence[str]) -> str:
    return labels.config_text(candidate.config, names)


def _nothing(job: Job) -> str:
    count: dict[str, int] = {}
    for candidate in job.candidates:
        count[candidate.standing] = count.get(candidate.standing, 0) + 1
    found = ", ".join(f"{n} {standing}" for standing, n in count.items())
    return f"no answer: no candidate may be believed within the SLOs ({found})"


def _against(job: Job, best: Candidate, names: Sequence[str]) -> list[str]:
    lines = []
    base = job.baseline
    if base is None:
        lines.append("that is the plainest configuration of this engine itself")
    else:
        lines.append(_held_against("the plainest configuration of the engine", job, best, base, names))
    others = [c for c in job.candidates if c.rank and c.config.engine != best.config.engine]
    if others:
        lines.append(_held_against("the next engine", job, best, others[0], names))
    limit = utilization.binds(best.outcomes[0].metrics)
    return lines if limit is None else [*lines, limit]


def _held_against(what: str, job: Job, best: Candidate, other: Candidate, names: Sequence[str]) -> str:
    name = f"{what} ({_name(other, names)} at {push(other.load)})"
    if other.standing in ("failed", "invalid"):
        return f"{name} {'failed' if other.standing == 'failed' else 'has no number to be believed'}"
    factor = gain(job.objective, best, other)
    if factor is None:
        return f"{name} has no such figure"
    said = {"slo missed": ", which misses the SLOs", "below floor": ", which is below the accuracy floor",
            "doubtful": ", which is doubtful"}  # fmt: skip
    beyond = said.get(other.standing, "")
    return f"{labels.relation(factor, job.objective.better)} {name}{beyond}{_overlap(job, best, other)}"


def _overlap(job: Job, best: Candidate, other: Candidate) -> str:
    mine, theirs = best.spread(job.objective.metric), other.spread(job.objective.metric)
    if mine and theirs and mine[0] <= theirs[1] and theirs[0] <= mine[1]:
        return "; but their repeats overlap: not told apart"
    return ""


def _caveats(job: Job, best: Candidate, names: Sequence[str]) -> list[str]:
    lines = []
    if best.standing == "doubtful":
        reasons = [r.text for o in best.outcomes for r in o.judgement.reasons]
        unknown = _undetermined(best)
        unknown += [] if best.floor is None or best.floor.verdict == "PASS" else [_floor_doubt(best.floor)]
        lines.append(f"to be doubted: {'; '.join(dict.fromkeys([*reasons, *unknown]))}")
    spread = best.spread(job.objective.metric)
    if spread is None:
        lines.append("measured once: one measurement is no proof of a difference (repeats: 3 and more)")
    else:
        low, high = (labels.number(v) for v in spread)
        lines.append(f"median of {len(best.outcomes)} repeats, from {low} to {high}")
    rival = job.doubtful_winner
    if rival is not None:
        relation = labels.relation(gain(job.objective, rival, best) or 1.0, job.objective.better)
        name = f"{_name(rival, names)} at {push(rival.load)}"
        lines.append(f"left out as doubtful: {name}; it {relation} this. {_doubt(rival)}")
    return lines


def _floor_doubt(floor: Floor) -> str:
    """That the accuracy floor is not shown to be kept, and what would settle it."""
    open_ = ", ".join(c.name for c in floor.claims if c.counts and c.verdict == "INCONCLUSIVE")
    settle = f"; {settling(floor.needed)}" if floor.needed else ""
    return f"its accuracy is not shown to keep the floor ({open_}){settle}"


def _doubt(candidate: Candidate) -> str:
    """The first reason against a candidate, and what to do about it."""
    for outcome in candidate.outcomes:
        for reason in outcome.judgement.reasons:
            return f"Its doubt: {reason.text}; remedy: {reason.remedy}"
    if candidate.floor is not None and candidate.floor.verdict != "PASS":
        return f"Its doubt: {_floor_doubt(candidate.floor)}"
    return f"It cannot be said whether it keeps the SLOs: {'; '.join(_undetermined(candidate))}"


def _undetermined(candidate: Candidate) -> list[str]:
    """Each SLO that its points cannot tell, with the samples that there were."""
    return [f"{slo} {why}" for o in candidate.outcomes for slo, _ in o.slos if (why := o.why_unknown(slo))]
