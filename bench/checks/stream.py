"""Was the output seen as it was made? What is buffered, hidden or counted otherwise has no pace to time."""

from __future__ import annotations

import numpy as np

from bench.checks.case import Case, Finding, graded
from bench.metrics import latency


def output_buffered(case: Case) -> Finding | None:
    """Output that arrives in one read or in clumps of events: TPOT, ICL and ITL are withheld."""
    found = case.view.arrival
    if not found.withheld:
        return None
    if found.at_once >= found.clumps:
        how = f"{found.at_once} of {found.answers} answers came in one read, all their tokens in no time"
    else:
        read = f"{found.events_a_read:.0f} events a read"
        how = f"{found.clumps} of {found.answers} answers came in clumps ({read})"
    return Finding(
        "suspect",
        f"{how}: something buffers the stream; TTFT is the buffer's, TPOT, ICL and ITL are withheld",
        "switch off buffering in the proxy or gateway (nginx: proxy_buffering off), or aim at the server",
    )


def hidden_reasoning(case: Case) -> Finding | None:
    """Reasoning that usage counts and the stream never shows: TPOT is over what was shown."""
    done = [r for r, taken in zip(case.view.records, latency.complete(case.view), strict=True) if taken]
    hidden = [r.hidden_tokens for r in done]
    of = sum(h > 0 for h in hidden)
    if not done or of <= case.limits.count_requests * len(done):
        return None
    told = sum(r.output_tokens or 0 for r in done)
    return Finding(
        "suspect",
        f"{of} of {len(done)} answers hold reasoning that is counted and never shown: {sum(hidden):,} of "
        f"{told:,} output tokens; TTFT holds the thinking, TPOT is over the tokens that were shown",
        "have the server stream its reasoning, or switch it off; compare only runs that think alike",
    )


def unseen_tokens(case: Case) -> Finding | None:
    """Fewer tokens in the text than in usage: a token has a byte at least. Their TPOT is withheld."""
    requests, done = case.view.requests, latency.complete(case.view)
    known = done & np.isfinite(requests.tokens)
    count = int(known.sum())
    if not count:
        return None
    unseen = known & np.isnan(requests.visible)
    share = int(unseen.sum()) / count
    return graded(
        share,
        case.limits.count_requests,
        case.limits.unseen_invalid,
        f"{int(unseen.sum())} of {count} answers have fewer bytes of text than usage counts tokens: output "
        "was counted and never seen (hidden reasoning?); their TPOT is withheld",
        "have the server stream its reasoning or tell reasoning_tokens; else report its wrong count there",
    )


def surplus_events(case: Case) -> Finding | None:
    """More events with output than usage counts tokens: the count or the stream is not the engine's."""
    requests, done = case.view.requests, latency.complete(case.view)
    known = done & np.array([r.output_tokens is not None for r in case.view.records], dtype=bool)
    if not case.view.streams or not known.any():
        return None
    limits, events, tokens = case.limits, requests.events[known], requests.tokens[known]
    more = float((events > tokens + np.maximum(limits.count_tokens, limits.count_share * tokens)).mean())
    if more <= limits.count_requests:
        return None
    ratio = float(events.sum() / max(1.0, tokens.sum()))
    return Finding(
        "invalid" if ratio > 1 + limits.count_invalid else "suspect",
        f"{more:.0%} of the answers came in more events than usage counts tokens ({ratio:.2f} events each)",
        "the server counts too few tokens, or a gateway cuts the text anew: measure the server itself",
    )
