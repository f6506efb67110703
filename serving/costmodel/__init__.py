"""What a model, a card and a quantization cost: memory, time, support."""
