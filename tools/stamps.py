"""Latencies of a load from three moments of each request, as the client's benchmarks show them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def percentiles_ms(stamps: NDArray[np.float64], tokens: int) -> dict[str, float]:
    """Milliseconds, percentiles as numpy's. `stamps`: a row a request of `tokens`: sent, first and last token, seconds."""
    ttft, e2e = stamps[:, 1] - stamps[:, 0], stamps[:, 2] - stamps[:, 0]

    def ms(values: NDArray[np.float64], q: float = 50) -> float:
        return 1e3 * float(np.percentile(values, q))

    return {
        "ttft_p50_ms": ms(ttft),
        "ttft_p99_ms": ms(ttft, 99),
        "tpot_p50_ms": ms(e2e - ttft) / (tokens - 1),
        "e2e_p50_ms": ms(e2e),
    }
