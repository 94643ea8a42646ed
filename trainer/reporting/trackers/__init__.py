"""`--trackers`: MLflow, Weights & Biases, Trackio, each by its own client, in a process of its own."""
