"""The networks of `--model`, one file each, found by its name: `features(x)` maps scaled images to vectors.

One whose function also takes `drop_path` has residual blocks, and drops them as `--drop_path` says.

One with `weights_of_data(images)` has first weights that follow from training images: variables' paths to values.
`logits_settings()` returns what its layer of the logits has otherwise.

The layer that scales pixels and the one that gives logits are added by models/build.py.
"""
