"""Searchers compared on recorded grids in place of engines."""
