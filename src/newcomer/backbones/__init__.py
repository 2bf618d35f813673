"""Encoders of other libraries: pictures or texts in, one feature vector each out."""
