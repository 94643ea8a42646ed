"""The process that a run is: signals, a deadline on progress, TensorFlow's import, the user's own modules."""
