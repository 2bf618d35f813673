"""One gradient step and its surroundings."""
