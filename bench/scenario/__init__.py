"""The scenario file: its model, its checks, its prices and SLOs."""
