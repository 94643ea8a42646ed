"""Formats that a library other than Keras and TensorFlow Serving reads, a module each."""
