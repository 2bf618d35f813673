"""Pre-training and meta-learning on the old items."""
