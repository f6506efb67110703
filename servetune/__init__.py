"""The application: what is typed, shown and deployed."""
