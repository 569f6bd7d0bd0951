"""Correct a result in seconds: strokes of a person, and what follows from them in space."""
