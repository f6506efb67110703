"""Is B as good as A? Ratios of two runs with intervals."""
