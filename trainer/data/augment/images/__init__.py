"""The members of `--augment` that change an image by itself, a file each, found by its name.

Each has `augment(images, seeds)`: uint8 [n, height, width, channels] and uint32 [n] to images of the same shape; it may
take by_comparison, which apply.py explains. Pure functions of the image and its seed, under XLA as outside. Each uses
random numbers (random_ints.py) with indices of its own: of 0 to 999, the files say which are taken.
"""
