"""The cores of this machine, shared among processes that train side by side."""

import os


def shares(count: int) -> list[tuple[int, ...]]:
    """Each process's own cores: processes that share all cores take turns on them, and read with too many threads.

    Args:
        count: Number of processes, at least 1.

    Returns:
        For each process the numbers of its cores, as many for all; empty, for all cores, where there are too few.
    """
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    each = len(cores) // count
    return [tuple(cores[rank * each:(rank + 1) * each]) for rank in range(count)]
