"""Replicas, GPUs and money for a rate or for recorded traffic."""
