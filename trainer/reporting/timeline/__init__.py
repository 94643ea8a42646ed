"""When a run did what: timeline.jsonl, and the share of its time that counted."""
