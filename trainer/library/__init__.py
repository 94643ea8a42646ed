"""The trainer as a library: a call in a script, a thread or a notebook."""
