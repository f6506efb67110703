"""The load generator, in processes of its own."""
