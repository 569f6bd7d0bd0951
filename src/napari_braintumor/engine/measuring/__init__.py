"""Segmentations in numbers and pictures, alone, against a reference, and beside each other."""
