"""Models by name. Each takes pixels from 0 to 255 and gives logits; the scaling is a layer inside."""

from trainer.models.build import build

__all__ = ["build"]
