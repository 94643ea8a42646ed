"""What people and programs see of a run. Reads metrics, never touches state."""

from trainer.reporting.reporter import Reporter

__all__ = ["Reporter"]
