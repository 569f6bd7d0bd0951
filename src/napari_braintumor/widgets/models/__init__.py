"""The Models dock."""
