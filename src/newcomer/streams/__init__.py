"""Examples to stages: the order in which things come."""
