"""Measurements of one program beside another; RESULTS.md holds the lines that they printed."""
