"""`doctor` without --data: whether this machine would start a run, and what would be in its way."""
