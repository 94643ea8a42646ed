"""The networks of `--model`, one file each, found by its name: `features(x)` maps scaled images to vectors.

One whose function also takes `drop_path` has residual blocks, and drops them as `--drop_path` says.

The layer that scales pixels and the one that gives logits are added by models/build.py.
"""
