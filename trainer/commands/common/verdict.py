"""What `bench` says of its figures: what bounds a training step, and what to change."""

import statistics
from collections.abc import Mapping
from typing import Any

_INPUT, _COMMUNICATION, _HOST = 0.1, 0.2, 0.5  # shares of a step from which on its cause is named


def reading_rate(row: Mapping[str, Any]) -> str:
    """How many images a core reads, and how many cores each device needs to be kept busy.

    Args:
        row: The row of a data set whose images are decoded: `replicas`, `cores` that read, `input_alone_step_ms` and
            `synthetic_step_ms` as in `verdict`, and `batch_size`.

    Returns:
        A clause.
    """
    synthetic, reading = (statistics.median(row[f"{name}_step_ms"]) for name in ("synthetic", "input_alone"))
    a_core = 1e3 * row["batch_size"] / reading / row["cores"]
    needed = row["cores"] * reading / synthetic / row["replicas"]
    return (f"a core reads {a_core:,.0f} images/s, so each device needs {needed:.2g} cores beside its own work; "
            f"{row['cores'] / row['replicas']:.2g} each are here")


def verdict(row: Mapping[str, Any]) -> str:
    """What bounds the step of a row of the table.

    Args:
        row: The row: lists of milliseconds `real_step_ms`, `synthetic_step_ms`, `input_alone_step_ms`,
            `least_step_ms` (of two examples a replica) and, for several replicas, `all_reduce_ms`.

    Returns:
        A sentence with the largest cause, its share of a step, and what to change.
    """
    real, synthetic, least, reading = (statistics.median(row[f"{name}_step_ms"])
                                       for name in ("real", "synthetic", "least", "input_alone"))
    # What reading takes alone is the most that it can cost; a larger difference is another program's, or chance.
    waits = min(max(0.0, real - synthetic), reading) / real
    communication = min(1.0, statistics.median(row["all_reduce_ms"]) / synthetic) if row.get("all_reduce_ms") else 0.0
    host = min(1.0, least / synthetic)
    if waits >= _INPUT:
        return (f"bound by input: a step waits for {waits:.0%} of its time; more cores, smaller files (python -m "
                "trainer prepare --resize_shorter), or --input=device where images lie in memory")
    if communication >= _COMMUNICATION and communication >= host - _COMMUNICATION:
        return (f"bound by communication: the all-reduce alone takes {communication:.0%} of a step; a larger "
                "--batch_size, or fewer replicas")
    if host >= _HOST:
        return (f"bound by the host: a step of next to no examples takes {host:.0%} of this one's time; a larger "
                "--batch_size")
    return (f"bound by compute: {1 - max(communication, host):.0%} of a step or more is arithmetic; a lower "
            "--precision, --xla, or more devices")
