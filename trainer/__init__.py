"""Lockstep: trains image classifiers on one GPU, several, or several machines. See README.md."""

import os

# Keras runs on several libraries and reads which from the environment or a file in the home folder.
os.environ["KERAS_BACKEND"] = "tensorflow"

__version__ = "0.1.0"
