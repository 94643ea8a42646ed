"""A run in a process that is another program's: a script, a notebook, a thread. It must be left as it was found."""
