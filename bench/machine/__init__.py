"""The machine that measures: its facts, whether it is fit, and how fast its client can be believed."""
