"""Plans in, models out."""
