"""What proves the load client: known truths and its honest rate."""
