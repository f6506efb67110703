"""What to run: the scenario, its points, their launches, and what cannot fit."""
