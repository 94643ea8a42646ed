"""`--notify`: who is told when a run ends."""
