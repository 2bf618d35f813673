"""The experiment framework: recipes, search, runs, comparisons and their reports."""
