"""Why an engine failed, by rules over its log."""
