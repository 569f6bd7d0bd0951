"""Bringing the scans of a case onto one grid: choosing it, registering, resampling, and the way back."""
