"""Prompts and prefixes of transformers, and how they enter attention."""
