"""Click models with per-item parameters."""
