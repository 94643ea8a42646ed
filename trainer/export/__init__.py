"""The exports of a run, measured in processes that don't import this package."""
