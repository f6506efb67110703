"""Claims of a spec held against the server that its exported files start."""
