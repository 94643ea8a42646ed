"""Rules that involve several settings; those of one setting stand beside it, in config.py."""
