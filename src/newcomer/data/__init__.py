"""Bytes to examples: everything that knows a file format."""
