"""Public data sets with their fixed splits, and a simulated click log."""
