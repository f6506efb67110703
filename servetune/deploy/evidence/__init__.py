"""What a spec rests on."""
