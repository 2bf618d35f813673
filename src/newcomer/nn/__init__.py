"""Tensors in, tensors out: nothing here knows files, tasks or scores."""
