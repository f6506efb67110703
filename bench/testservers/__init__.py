"""Servers that know the truth, for proofs and tests."""
