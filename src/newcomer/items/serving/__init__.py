"""The item service: items, events and their parameters in a database."""
