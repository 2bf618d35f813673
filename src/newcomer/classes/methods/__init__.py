"""Methods for new classes, one a file."""
