"""Several devices and several machines: which there are, how they find each other, what they decide together."""
