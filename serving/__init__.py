"""Starts engines and describes deployments."""
