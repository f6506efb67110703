"""Are the answers what was asked for? A server that stops early or drops requests looks fast."""

from __future__ import annotations

from collections import Counter

import numpy as np

from bench.checks.case import Case, Finding, graded
from bench.metrics import latency
from bench.records import complaints
from bench.records.model import Record


def _done(case: Case) -> list[Record]:
    return [r for r, taken in zip(case.view.records, latency.complete(case.view), strict=True) if taken]


def input_length(case: Case) -> Finding | None:
    """Prompt tokens by usage against those asked for: in the mean, and one by one (a server that cuts)."""
    pairs = np.array(
        [
            (r.asked_input_tokens, r.input_tokens)
            for r in _done(case)
            if r.asked_input_tokens and r.input_tokens
        ],
        dtype=float,
    ).reshape(-1, 2)
    if not pairs.size:
        return None
    limits, (asked, told) = case.limits, pairs.mean(axis=0)
    off = abs(told - asked)
    remedy = (
        "--tokenizer with the model's own folder or id makes lengths exact; else look for a chat template, a "
        "system prompt or a limit (truncation, context length) in the server"
    )
    lengths = f"{told:,.0f} tokens by usage, {asked:,.0f} asked"
    text = f"prompts are {told / asked:.0%} as long as asked for ({lengths})"
    room = max(limits.input_tokens, limits.input_share * asked)
    if case.view.run.point.load.endpoint == "chat" and told > asked:
        # Only a tokenizer's own template is in the length asked for; of another, so much is usual.
        room = max(room, min(limits.chat_template_tokens, limits.input_invalid * asked))
    if off > room:
        far = off > max(limits.chat_template_tokens, limits.input_invalid * asked)
        return Finding("invalid" if far else "suspect", text, remedy)
    apart = np.abs(pairs[:, 1] - pairs[:, 0])
    strays = float((apart > np.maximum(2 * limits.input_tokens, limits.input_invalid * pairs[:, 0])).mean())
    if strays <= limits.input_strays:
        return None
    return Finding(
        "suspect", f"{strays:.0%} of the prompts are far from the length asked for by usage", remedy
    )


def output_length(case: Case) -> Finding | None:
    """Output tokens against those asked for: in the mean 90% to 110%, each request exactly."""
    done = [r for r in _done(case) if r.asked_output_tokens and _tokens(r) is not None]
    if not done:
        return None
    ratio = sum(_tokens(r) or 0 for r in done) / sum(r.asked_output_tokens for r in done)
    remedy = "send ignore_eos and min_tokens, or an engine that honours them; compare only equal lengths"
    limits = case.limits
    if not limits.length_low <= ratio <= limits.length_high:
        return Finding("invalid", f"answers are {ratio:.0%} as long as asked for", remedy)
    strays = sum(_tokens(r) != r.asked_output_tokens for r in done) / len(done)
    if strays <= limits.length_strays:
        return None
    return Finding("suspect", f"{strays:.1%} of the answers are not of the length asked for", remedy)


def finish_reason(case: Case) -> Finding | None:
    """A forced length ends with finish_reason `length`; anything else ended for another reason."""
    told = [r.finish_reason for r in _done(case) if r.asked_output_tokens and r.finish_reason]
    others = Counter(reason for reason in told if reason != "length")
    if not told or sum(others.values()) / len(told) <= case.limits.length_strays:
        return None
    reason, count = others.most_common(1)[0]
    return Finding(
        "suspect",
        f"{count} of {len(told)} answers ended with {reason!r} instead of the length asked for",
        "send ignore_eos and min_tokens, or an engine that honours them",
    )


def errors(case: Case) -> Finding | None:
    """Failed requests: the latencies are of those that survived."""
    view = case.view
    due = int(view.inside.sum())
    if not due:
        return None
    failed = view.inside & view.requests.failed
    groups = complaints.failed(r for r, bad in zip(view.records, failed, strict=True) if bad)
    share = sum(group.count for group in groups) / due
    if not groups:
        return None
    named = "; ".join(complaints.brief(group) for group in groups[:3])
    others = "; percentiles are of the others" if share < 1 else ""
    adjusted = "; the adjusted percentiles count a failed request as infinite" if share < 1 else ""
    return graded(
        share,
        case.limits.errors,
        case.limits.errors_invalid,
        f"{share:.1%} of the requests failed ({named}){others}",
        complaints.hint(groups[0], view.run.point) + adjusted,
    )


def censored(case: Case) -> Finding | None:
    """Requests still running at the end: the longest ones are missing from the latencies."""
    view = case.view
    due = int(view.inside.sum())
    if not due:
        return None
    share = int((view.inside & view.requests.censored).sum()) / due
    return graded(
        share,
        case.limits.censored,
        case.limits.censored_invalid,
        f"{share:.1%} of the requests had not ended when the load was stopped",
        "measure longer, lower the load, or raise request_timeout_s so that they can end",
    )


def no_usage(case: Case) -> Finding | None:
    """The server told no token counts: ours stand in where there is a tokenizer."""
    done = _done(case)
    mute = sum(r.output_tokens is None for r in done)
    if not mute:
        return None
    blind = sum(_tokens(r) is None for r in done)
    remedy = "have the server send usage (stream_options include_usage), or give --tokenizer"
    if blind:
        return Finding("invalid", f"output tokens of {blind} of {len(done)} answers are unknown", remedy)
    return Finding(
        "suspect",
        f"{mute} of {len(done)} answers came without usage; their tokens are counted by our tokenizer",
        remedy,
    )


def token_counts(case: Case) -> Finding | None:
    """Usage against our own count of the text: answers beyond max(2, 1%), and their sums."""
    pairs = np.array(
        [
            (r.output_tokens, r.counted_output_tokens)
            for r in _done(case)
            if r.output_tokens is not None and r.counted_output_tokens is not None
        ],
        dtype=float,
    ).reshape(-1, 2)
    if not pairs.size:
        return None
    limits = case.limits
    apart = np.abs(pairs[:, 0] - pairs[:, 1])
    share = float((apart > np.maximum(limits.count_tokens, limits.count_share * pairs[:, 0])).mean())
    if share <= limits.count_requests:
        return None
    told, counted = pairs.sum(axis=0)
    off = counted / told - 1
    if -limits.count_fewer <= off <= limits.count_more:
        return None
    return Finding(
        "invalid" if abs(off) > limits.count_invalid else "suspect",
        f"our tokenizer counts {off:+.1%} against usage ({counted:,.0f} to {told:,.0f} tokens); "
        f"{share:.0%} of the answers disagree",
        "check that --tokenizer is the model's own; else the server counts wrongly: report it there",
    )


def _tokens(record: Record) -> int | None:
    return record.counted_output_tokens if record.output_tokens is None else record.output_tokens
