"""Correct a result: strokes, brush, edits of regions, and which slices a person has reviewed."""
