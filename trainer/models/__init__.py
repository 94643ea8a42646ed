"""Models by name. Each maps pixels from 0 to 255 to logits; the scaling is a layer of the model."""

from trainer.models.build import build, frozen_paths, weights_of_data

__all__ = ["build", "frozen_paths", "weights_of_data"]
