"""Encoders of other libraries: images or texts in, one feature vector each out."""
