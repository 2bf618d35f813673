"""Adaptation rules: from an item's parameters and events to new parameters."""
