"""Exports tried on the untrained model, beside the first steps."""
