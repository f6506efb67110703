"""Trials at several places at once; Ray carries them."""
