"""The training step: gradients on every replica, one all-reduce, the update; and the loop over steps on the device."""
