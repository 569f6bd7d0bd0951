"""The Measure dock."""
