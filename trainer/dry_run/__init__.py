"""`--dry_run`: a short form of a run, and what the whole would take."""
