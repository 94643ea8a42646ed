"""Augmentation: pure functions of images and a seed for each, on the device and under XLA."""
