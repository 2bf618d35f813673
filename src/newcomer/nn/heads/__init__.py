"""Heads that read classes off features: one interface, one file each; all but one fold into one linear layer."""
