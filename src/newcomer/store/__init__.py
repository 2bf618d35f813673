"""Things to and from disk."""
