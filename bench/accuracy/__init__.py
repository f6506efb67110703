"""Accuracy, stability and security tasks and their statistics."""
