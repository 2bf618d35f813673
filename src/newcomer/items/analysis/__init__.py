"""What a model learned about its items."""
