"""Predictions to numbers, without torch."""
