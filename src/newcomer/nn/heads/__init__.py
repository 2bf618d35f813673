"""Heads that read classes off features: one interface, one file each; every one folds into one linear layer."""
