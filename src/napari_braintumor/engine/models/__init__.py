"""Trained models: the card, the store, the table of architectures."""
