"""Measures endpoints, and says whether the numbers may be believed."""
