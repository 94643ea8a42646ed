"""The networks of `--model`, one file each, found by its name: `features(x)` maps scaled images to vectors.

The layer that scales pixels and the one that gives logits are added by models/build.py.
"""
