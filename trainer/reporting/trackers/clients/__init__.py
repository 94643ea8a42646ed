"""The trackers, a file each: `--trackers` takes the files' names, each that of the client's package.

A module has `connect(run)`, which returns a `Tracker`. It imports its client in there alone.
"""
