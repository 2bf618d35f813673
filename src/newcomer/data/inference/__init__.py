"""Schema inference: what the columns of a click log mean."""
