"""Learners for new items, one method a file."""
