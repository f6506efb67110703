"""What the engine, its GPUs and its machine say while the load runs."""
