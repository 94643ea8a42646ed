"""Starts `python -m trainer.main` somewhere, watches it, and starts it again. Imports no TensorFlow."""
