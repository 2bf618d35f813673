"""HTTP service of click models and classifiers: `newcomer serve`."""
