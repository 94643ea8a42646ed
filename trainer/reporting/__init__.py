"""What users and programs see of a run. Reads metrics, never touches state."""
