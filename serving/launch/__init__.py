"""Starting, owning and stopping an engine process."""
