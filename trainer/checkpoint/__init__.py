"""Checkpoints: durable, verified before use, written beside the training."""
