"""Does the server's own account agree with the client's?"""

from __future__ import annotations

import numpy as np

from bench.checks.case import Case, Finding, graded
from bench.metrics.histogram import reconcile, served
from bench.metrics.resources import cache_hit_share


def cache_hits(case: Case) -> Finding | None:
    """Prompt tokens found in the prefix cache beyond what the workload shares by design."""
    share = cache_hit_share(case.view)
    allowed = _declared(case)
    if share is None or allowed is None:
        return None
    return graded(
        share - allowed,
        case.limits.cache,
        case.limits.cache_invalid,
        f"{share:.1%} of the prompt tokens came from the prefix cache; the workload shares {allowed:.1%}",
        "prompts repeat: another --seed, or switch the engine's prefix cache off, or restart it",
    )


def _declared(case: Case) -> float | None:
    """Share the cache may serve: as declared, the shared prefix, and what a chat template puts before all.

    None where it cannot be told: a trace or a session re-uses prefixes by its nature.
    """
    load = case.view.run.point.load
    if case.declared_cache_share == 0 and (load.trace is not None or load.turns > 1):
        return None
    requests = case.view.requests
    asked = np.array([r.asked_input_tokens for r in case.view.records], dtype=float)
    total = float(np.nansum(requests.input_tokens)) or float(asked.sum()) or float(load.input_tokens)
    template = (
        float(np.nansum(np.maximum(requests.input_tokens - asked, 0))) if load.endpoint == "chat" else 0
    )
    shared = load.shared_prefix_tokens * max(1, len(case.view.records))
    return max(case.declared_cache_share, min(1.0, (shared + template) / total))


def histograms(case: Case) -> Finding | None:
    """Client and server time the same requests: medians and p90 within the width of the bucket, or 10 ms."""
    apart = [pair for pair in reconcile(case.view) if not pair.agrees]
    if not apart:
        return None
    worst = max(apart, key=lambda pair: abs(pair.client_s / pair.server_s - 1) if pair.server_s else 0)
    return Finding(
        "suspect",
        f"{worst.latency} {worst.statistic} is {worst.client_s * 1e3:.0f} ms at the client, "
        f"{worst.low_s * 1e3:.0f} to {worst.high_s * 1e3:.0f} ms by the server's own histogram",
        "time is lost between client and server: look at the client's CPU, a proxy, the network",
    )


def foreign_requests(case: Case) -> Finding | None:
    """The server answered more requests than we sent: somebody else loads it."""
    count = served(case.view)
    ours = int(np.isfinite(case.view.requests.sent).sum())
    if count is None or count <= ours + max(2, case.limits.foreign_requests * ours):
        return None
    return Finding(
        "invalid",
        f"the server completed {count:.0f} requests while we sent {ours}: others use it",
        "measure a server of your own, or when nobody else uses it",
    )
