"""What is computed from a backbone's features: class statistics, drift, novelty, temperature, augmentation."""
