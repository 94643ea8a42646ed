"""How good a model's answers are: what it said of each example, and figures of that with their uncertainty."""
