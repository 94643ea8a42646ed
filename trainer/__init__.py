"""Lockstep: trains image classifiers on one GPU, several, or several machines. See README.md."""

__version__ = "0.1.0"
