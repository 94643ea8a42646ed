"""The members of `--augment` that join an example with its partner, a file each, found by its name.

Each has `mix(images, partners, seeds)`: two batches float32 [n, height, width, channels] and uint32 [n] to (images,
lam: the weight of the first label, float32 [n]).
"""
