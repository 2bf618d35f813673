"""Methods for new items, one a file."""
