"""The process of a run: signals, a watchdog on progress, TensorFlow's import, the user's own modules."""
