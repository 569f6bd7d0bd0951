"""Volumes as networks see them."""
