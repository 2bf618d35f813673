"""From values of a click log to tensors."""
