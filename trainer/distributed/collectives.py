"""What all workers of a job decide together: small all-reduces, which every worker enters at the same point."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from trainer.distributed.consistency import require_equal
from trainer.errors import DeviceError, LockstepError, catching, first_few, of_code
from trainer.process.tf_import import tf

if TYPE_CHECKING:
    from trainer.distributed.runtime import Runtime
    from trainer.train.state import TrainState

_FUNCTIONS: dict[str, Any] = {}  # traced once per process
_NUMBERS_AT_ONCE = 2**22  # 32 MiB


def all_reduce_ints(runtime: Runtime, values: Sequence[int]) -> list[int]:
    """Adds up whole numbers over all workers.

    Args:
        runtime: The devices of this worker.
        values: Numbers, equally many on every worker.

    Returns:
        The sums, the same on every worker.
    """
    if runtime.workers == 1:
        return list(values)
    # Every local replica adds the same, so the sum counts each worker once per replica.
    sums = _job_sum(runtime, tf.constant(values, tf.int64))
    return [int(value) // len(runtime.devices) for value in sums]


def sum_floats(runtime: Runtime, values: np.ndarray) -> np.ndarray:
    """Puts together an array of which each worker has some rows, and zeros elsewhere.

    Args:
        runtime: The devices of this worker.
        values: float32 [n, m], of the same shape on every worker.

    Returns:
        float32 [n, m], the same on every worker.
    """
    if runtime.workers == 1:
        return values
    # As whole numbers: a float that is added several times, and divided, may not be the same float.
    bits = np.ascontiguousarray(values, np.float32).view(np.int32).ravel()
    sums = [_job_sum(runtime, tf.constant(bits[begin:begin + _NUMBERS_AT_ONCE], tf.int64)) // len(runtime.devices)
            for begin in range(0, len(bits), _NUMBERS_AT_ONCE)]
    return np.concatenate(sums).astype(np.int32).view(np.float32).reshape(values.shape)


def _job_sum(runtime: Runtime, values: tf.Tensor) -> np.ndarray:
    """The sum of a tensor over all replicas of all workers."""
    if "sum" not in _FUNCTIONS:
        def replica_sum(x: tf.Tensor) -> tf.Tensor:
            # The identity puts it on a device: an argument has none, and the reduction asks for one.
            return tf.distribute.get_replica_context().all_reduce("SUM", tf.identity(x))

        def job_sum(x: tf.Tensor) -> tf.Tensor:
            return runtime.strategy.experimental_local_results(runtime.strategy.run(replica_sum, args=(x,)))[0]

        _FUNCTIONS["sum"] = tf.function(job_sum, reduce_retracing=True, autograph=False)
    return _FUNCTIONS["sum"](values).numpy()


def broadcast(runtime: Runtime, value: int) -> int:
    """Sends a whole number from the chief to every worker.

    Args:
        runtime: The devices of this worker.
        value: The number, on the chief; ignored on the other workers.

    Returns:
        The chief's number, on every worker.
    """
    return all_reduce_ints(runtime, [value if runtime.is_chief else 0])[0]


def all_gather_ints(runtime: Runtime, value: int) -> list[int]:
    """Sends a whole number from each worker to every worker.

    Returns:
        The numbers, by worker.
    """
    return all_reduce_ints(runtime, [value if worker == runtime.worker else 0 for worker in range(runtime.workers)])


def all_gather(runtime: Runtime, value: Any) -> list[Any]:
    """Sends a small value from each worker to every worker.

    Args:
        runtime: The devices of this worker.
        value: Anything that JSON can hold.

    Returns:
        The values, by worker.
    """
    if runtime.workers == 1:
        return [value]
    data = json.dumps(value).encode()
    sizes = all_gather_ints(runtime, len(data))
    table = np.zeros((runtime.workers, max(sizes)), np.int64)
    table[runtime.worker, :len(data)] = np.frombuffer(data, np.uint8)
    sums = np.array(all_reduce_ints(runtime, table.ravel().tolist()), np.uint8).reshape(table.shape)
    return [json.loads(bytes(row[:size])) for row, size in zip(sums, sizes, strict=True)]


@contextlib.contextmanager
def all_or_none(runtime: Runtime) -> Iterator[None]:
    """Around what every worker does by itself: if it fails on one, all workers end, with the exit code of that failure.

    The block itself enters no collective: the other workers would wait for the one that failed.

    Args:
        runtime: The devices of this worker.

    Raises:
        LockstepError: this worker's own failure or, if it has none, another worker's.
    """
    with catching() as caught:
        yield
    with _own_failure_first(caught.error):
        (failed,) = all_reduce_ints(runtime, [int(caught.error is not None)])
    if failed:
        raise_any(runtime, caught.error)


def require_equal_states(runtime: Runtime, state: TrainState) -> None:
    """Makes sure that all replicas of the job hold the same state.

    Args:
        runtime: The devices of this worker.
        state: The state of this worker's replicas.

    Raises:
        DeviceError: on every worker, naming the replicas that differ from most.
    """
    if runtime.replicas == 1:
        return
    checksums = [checksum for local in all_gather(runtime, state.checksums()) for checksum in local]
    usual = max(checksums, key=checksums.count)
    odd = [str(replica_id) for replica_id, checksum in enumerate(checksums) if checksum != usual]
    if odd:
        final_barrier(runtime)
        raise DeviceError(f"the weights of replica{'s' if len(odd) > 1 else ''} {first_few(odd)} are not those of the "
                          "rest: a device, or a link between two devices, computes wrong; this state is not saved",
                          "run the same command again, on other devices if it happens again; it goes on from the last "
                          "checkpoint. With GPUs, NCCL_P2P_DISABLE=1 shows whether a link is the cause")


def raise_any(runtime: Runtime, failure: LockstepError | None) -> NoReturn:
    """Ends all workers, where all know that one of them failed.

    Args:
        runtime: The devices of this worker.
        failure: What failed on this worker, or None.

    Raises:
        LockstepError: this worker's own failure or, if it has none, another worker's.
    """
    with _own_failure_first(failure):
        messages = all_gather(runtime, failure and [failure.code, failure.cause, failure.fix])
    final_barrier(runtime)
    if failure:
        raise failure
    worker, (code, cause, fix) = next((worker, message) for worker, message in enumerate(messages) if message)
    raise of_code(code)(f"worker {worker} ended: {cause}", fix)


@contextlib.contextmanager
def _own_failure_first(failure: LockstepError | None) -> Iterator[None]:
    """Raises this worker's own failure, which says more, where TensorFlow only reports that other workers are gone."""
    try:
        yield
    except tf.errors.OpError:
        if failure:
            raise failure from None
        raise


def final_barrier(runtime: Runtime) -> None:
    """The barrier before the end: a worker that left early would make a neighbour's last all-reduce fail.

    A worker that passes the barrier knows that all workers passed everything before it, so the barrier itself may fail.
    """
    with contextlib.suppress(tf.errors.OpError):
        all_reduce_ints(runtime, [0])


def require_same(runtime: Runtime, fingerprint: Mapping[str, Any]) -> None:
    """Makes sure that all workers have the same fingerprint.

    Args:
        runtime: The devices of this worker.
        fingerprint: What must be equal, as JSON can hold it. Only a hash is sent as long as all are equal.

    Raises:
        UsageError: on every worker, with each difference and which workers have which value.
    """
    text = json.dumps(fingerprint, sort_keys=True)
    if len(set(all_gather(runtime, hashlib.sha256(text.encode()).hexdigest()))) > 1:
        fingerprints = all_gather(runtime, fingerprint)
        final_barrier(runtime)
        require_equal(fingerprints)
