"""The end of a run, after its last step."""
