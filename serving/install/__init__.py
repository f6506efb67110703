"""Engine environments: installing them, adopting a machine's own."""
