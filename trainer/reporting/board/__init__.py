"""What TensorBoard shows beside scalars of metrics.jsonl: tables, drawings, speed, and why training is slow."""
