"""The parts of `predict`: which files are meant, what the model says of each, and how that is printed."""
