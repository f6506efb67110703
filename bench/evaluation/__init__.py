"""Accuracy evaluations of a campaign: run on a launch, kept in the folder."""
