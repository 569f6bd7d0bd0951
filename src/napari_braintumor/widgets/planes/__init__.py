"""The dock with the planes beside the one that the viewer shows."""
