"""The networks of `--model`, a file each, found by its name: `features(x)` from scaled images to a vector.

The layer that scales pixels and the one that gives logits are added by models/build.py.
"""
