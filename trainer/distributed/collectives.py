"""What all workers of a job decide together: small all-reduces, entered by all of them at the same places."""

import contextlib
import hashlib
import json

import numpy as np

from trainer.distributed.consistency import require_equal
from trainer.errors import DeviceError, catching, of_code
from trainer.process.tf_import import tf

_FUNCTIONS = {}  # traced once per process


def all_reduce_ints(runtime, values):
    """Adds up whole numbers over all workers.

    Args:
        runtime: The `Runtime`.
        values: A list of ints, of the same length on every worker.

    Returns:
        The sums, a list of ints, on every worker.
    """
    if runtime.workers == 1:
        return list(values)
    if "sum" not in _FUNCTIONS:
        def replica_sum(x):
            # The identity gives it a place: an argument has no device, and the reduction asks for one.
            return tf.distribute.get_replica_context().all_reduce("SUM", tf.identity(x))
        _FUNCTIONS["sum"] = tf.function(lambda x: runtime.strategy.experimental_local_results(
            runtime.strategy.run(replica_sum, args=(x,)))[0], reduce_retracing=True)
    # Every local replica adds the same, so the sum counts each worker once per replica.
    summed = _FUNCTIONS["sum"](tf.constant(values, tf.int64)).numpy()
    return [int(value) // len(runtime.devices) for value in summed]


def broadcast(runtime, value):
    """Tells every worker a whole number of the chief's.

    Args:
        runtime: The `Runtime`.
        value: The chief's int; those of other workers don't count.

    Returns:
        The chief's, on every worker.
    """
    return all_reduce_ints(runtime, [value if runtime.is_chief else 0])[0]


def all_gather_ints(runtime, value):
    """Tells every worker a whole number of each.

    Returns:
        A list of ints, by worker.
    """
    return all_reduce_ints(runtime, [value if worker == runtime.worker else 0 for worker in range(runtime.workers)])


def all_gather(runtime, value):
    """Tells every worker a small value of each.

    Args:
        runtime: The `Runtime`.
        value: Anything that JSON can hold.

    Returns:
        A list of such, by worker.
    """
    if runtime.workers == 1:
        return [value]
    data = json.dumps(value).encode()
    sizes = all_gather_ints(runtime, len(data))
    table = np.zeros((runtime.workers, max(sizes)), np.int64)
    table[runtime.worker, :len(data)] = np.frombuffer(data, np.uint8)
    summed = np.array(all_reduce_ints(runtime, table.ravel().tolist()), np.uint8).reshape(table.shape)
    return [json.loads(bytes(row[:size])) for row, size in zip(summed, sizes, strict=True)]


@contextlib.contextmanager
def all_or_none(runtime):
    """Around what every worker does by itself: if it fails on one, all end, each with that one's exit code.

    The block itself enters no collective: the others would wait for the one that failed.

    Args:
        runtime: The `Runtime`.

    Raises:
        LockstepError: this worker's own failure, or what another one told of its own.
    """
    with catching() as caught:
        yield
    with _own_first(caught.error):
        (failed,) = all_reduce_ints(runtime, [int(caught.error is not None)])
    if failed:
        raise_any(runtime, caught.error)


def require_equal_states(runtime, state):
    """Makes sure that all replicas of the job hold the same.

    Args:
        runtime: The `Runtime`.
        state: The `TrainState`.

    Raises:
        DeviceError: on every worker, naming those that differ from most.
    """
    if runtime.replicas == 1:
        return
    told = [number for numbers in all_gather(runtime, state.checksums()) for number in numbers]
    usual = max(told, key=told.count)
    odd = [str(replica) for replica, number in enumerate(told) if number != usual]
    if odd:
        final_barrier(runtime)
        raise DeviceError(f"the weights of replica{'s' if len(odd) > 1 else ''} {', '.join(odd)} are not those of the "
                          "rest: a device, or a link between two, computes wrong; this state is not saved",
                          "run the same command again, on other devices if it happens again; it goes on from the last "
                          "checkpoint. Of GPUs, NCCL_P2P_DISABLE=1 tells whether it is the links")


def raise_any(runtime, failure):
    """Ends all workers, where all know that one of them failed.

    Args:
        runtime: The `Runtime`.
        failure: This worker's `LockstepError`, or None.

    Raises:
        LockstepError: this worker's own failure, or what another one told of its own.
    """
    with _own_first(failure):
        told = all_gather(runtime, failure and [failure.code, failure.cause, failure.fix])
    final_barrier(runtime)
    if failure:
        raise failure
    worker, (code, cause, fix) = next((worker, said) for worker, said in enumerate(told) if said)
    raise of_code(code)(f"worker {worker} ended: {cause}", fix)


@contextlib.contextmanager
def _own_first(failure):
    """If the others are gone already, this worker's own failure says more than that."""
    try:
        yield
    except tf.errors.OpError:
        if failure:
            raise failure from None
        raise


def final_barrier(runtime):
    """The barrier before the end: a worker that left early would make a neighbour's last all-reduce fail.

    All that come out of it know that everything before it is through on all, so it may fail itself.
    """
    with contextlib.suppress(tf.errors.OpError):
        all_reduce_ints(runtime, [0])


def require_same(runtime, facts):
    """Makes sure that all workers have the same facts.

    Args:
        runtime: The `Runtime`.
        facts: A dict of what JSON can hold. As long as they are the same, only a hash of them travels.

    Raises:
        UsageError: on every worker, with each difference and who has what.
    """
    text = json.dumps(facts, sort_keys=True)
    if len(set(all_gather(runtime, hashlib.sha256(text.encode()).hexdigest()))) > 1:
        told = all_gather(runtime, facts)
        final_barrier(runtime)
        require_equal(told)
