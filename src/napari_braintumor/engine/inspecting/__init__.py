"""A first look at images: what is head, what they seem to show."""
