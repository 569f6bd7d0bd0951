"""Bundles of MONAI: read as texts, written so that MONAI runs them alone."""
