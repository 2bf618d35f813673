"""Learners for new classes, one method a file."""
