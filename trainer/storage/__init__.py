"""Files that last: a run's folder, who may write into it, and how. No TensorFlow."""
