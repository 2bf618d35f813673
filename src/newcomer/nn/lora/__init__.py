"""Low-rank adaptation of linear layers: what a step changes and what old tasks need."""
