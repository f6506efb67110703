"""The highest rate that meets the SLOs, as an interval."""
