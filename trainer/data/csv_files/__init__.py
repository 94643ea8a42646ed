"""CSV files that list images with their classes."""
