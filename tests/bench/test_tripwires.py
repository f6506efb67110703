"""Distance from the baseline on the same tokens: divergence, agreement, perplexity, flips."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.accuracy.evaluation import Evaluation, Scored, TaskResult
from bench.accuracy.journal import Entry, Journal
from bench.accuracy.task import Reply
from bench.accuracy.tripwires import WIRES, Distance, distance, kl, wires

weights = st.lists(st.floats(0.01, 1.0), min_size=3, max_size=12)


def logs(shares: np.ndarray) -> dict[str, float]:
    return {f"t{i}": math.log(share) for i, share in enumerate(shares)}


def test_a_distribution_is_no_distance_from_itself() -> None:
    p = logs(np.array([0.5, 0.3, 0.1]))
    assert kl(p, p) == 0
    assert kl({}, {}) == 0


@given(weights, weights)
def test_divergence_of_the_top_is_a_lower_bound_of_the_whole(a: list[float], b: list[float]) -> None:
    n = min(len(a), len(b))
    p, q = (np.array(x[:n]) / sum(x[:n]) for x in (a, b))
    whole = float(np.sum(p * np.log(p / q)))
    assert kl(logs(p), logs(q)) == pytest.approx(whole, abs=1e-6)
    top_p = dict(sorted(logs(p).items(), key=lambda kv: -kv[1])[:2])
    top_q = dict(sorted(logs(q).items(), key=lambda kv: -kv[1])[:2])
    assert 0 <= kl(top_p, top_q) <= whole + 1e-6


def test_divergence_in_numbers() -> None:
    p, q = {"a": math.log(0.9)}, {"a": math.log(0.6)}
    assert kl(p, q) == pytest.approx(0.9 * math.log(0.9 / 0.6) + 0.1 * math.log(0.1 / 0.4))


def scored_text(
    folder: Path, shift: float, *, first: str = "x", text: str = "long answer", choice: str = "1"
) -> Evaluation:
    folder.mkdir()
    top = {first: math.log(0.6), "y" if first == "x" else "x": math.log(0.3)}
    answer = Reply(
        3, tokens=("a", " b", " c"), logprobs=(None, -1.0 - shift, -2.0 - shift), tops=(None, top, top)
    )
    with Journal(folder / "text.jsonl") as log:
        for index in range(6):
            log.add(Entry(f"t{index}", "loaded", f"p{index}", (answer,)))
    with Journal(folder / "continuations.jsonl") as log:
        log.add(Entry("c", "loaded", "p", (Reply(3, 9, text, "length"),)))
    facts = {str(i): Scored(1.0, choice if i < 3 else "0", "p") for i in range(10)}
    return Evaluation(folder, {}, {"facts": TaskResult("facts", "accuracy", 0.25, facts)})


def test_distances_of_known_evaluations(tmp_path: Path) -> None:
    base = scored_text(tmp_path / "base", 0.0)
    same = distance(scored_text(tmp_path / "same", 0.0), base)
    assert (same.positions, same.top1_agreement, same.kl_mean, same.flips) == (12, 1.0, 0.0, 0.0)
    assert same.perplexity_ratio == pytest.approx(1)
    assert same.prefix_agreement == 1
    other = distance(scored_text(tmp_path / "other", 0.1, first="y", text="long story", choice="2"), base)
    assert other.perplexity_ratio == pytest.approx(math.exp(0.1))
    assert other.top1_agreement == 0
    assert other.kl_mean is not None
    assert other.kl_mean > 0.1
    assert (other.flips, other.flipped_of) == (0.3, 10)
    assert other.prefix_agreement == pytest.approx(5 / 11)


def test_texts_cut_into_other_tokens_are_not_compared(tmp_path: Path) -> None:
    base = scored_text(tmp_path / "base", 0.0)
    other = scored_text(tmp_path / "other", 0.0)
    path = tmp_path / "other" / "text.jsonl"
    path.write_text(path.read_text().replace('" b"', '" B"'))
    assert distance(other, base).kl_mean is None


def test_a_wire_trips_beyond_the_baselines_own_spread_and_decides_only_at_a_limit() -> None:
    found = Distance(positions=100, kl_mean=0.05, top1_agreement=0.97, per_text=(0.05,) * 9)
    own = Distance(positions=100, kl_mean=0.01, top1_agreement=0.98)
    loud = {c.name: c for c in wires(found, own, {})}
    assert set(loud) == {"tripwire: kl_mean", "tripwire: top1_agreement"}
    assert all("tripped" in c.note and not c.counts for c in loud.values())
    assert "quiet" in wires(own, own, {})[0].note
    assert "not known" in wires(found, None, {})[0].note
    assert wires(found, own, {"kl_mean": 0.1})[0].verdict == "PASS"
    assert wires(found, own, {"kl_mean": 0.01})[0].verdict == "FAIL"
    (agreement,) = [c for c in wires(found, own, {"top1_agreement": 0.9}) if c.counts]
    assert (agreement.name, agreement.verdict) == ("tripwire: top1_agreement", "PASS")


def test_every_wire_reads_a_field_of_distance() -> None:
    full = Distance(9, 0.9, 0.1, 0.2, 1.1, 0.3, 10, 0.8)
    assert {name: of(full) for name, (of, _) in WIRES.items()} == {
        "top1_agreement": 0.9, "kl_mean": 0.1, "kl_p99": 0.2, "perplexity_ratio": 1.1, "flips": 0.3,
        "prefix_agreement": 0.8,
    }  # fmt: skip
