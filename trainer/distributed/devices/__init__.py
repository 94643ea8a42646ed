"""What a process computes on: what a device's kind implies, which devices there are, and which are used."""
