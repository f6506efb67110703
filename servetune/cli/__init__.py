"""One file a command; data on stdout, talk on stderr."""
