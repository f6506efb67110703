"""From a measured winner to the file that is deployed, and what it claims."""
