"""Side-by-side measurements; RESULTS.md holds what they gave."""
