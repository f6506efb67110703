"""Top layer: chooses which configurations to measure, and which one wins."""
