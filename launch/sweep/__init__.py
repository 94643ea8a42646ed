"""`python -m launch.sweep FILE`: a run for each combination of a file's values; see __main__.py."""
