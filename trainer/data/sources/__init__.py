"""One file per `--dataset`: each has a function `load` of a run's `Config`."""
