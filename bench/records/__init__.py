"""The raw facts of a point and the folder they lie in."""
