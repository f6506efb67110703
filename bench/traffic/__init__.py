"""What is sent and when: prompts, arrivals, recorded traces."""
