"""Everything that is shown: terminal, pages, progress."""
