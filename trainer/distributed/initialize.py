"""From flags to devices that work together: this process's, and those of the job's other workers."""

from trainer.distributed.consistency import fingerprint_of
from trainer.distributed.devices.autotune import AutotuneFile
from trainer.distributed.rendezvous import rendezvous
from trainer.errors import catching
from trainer.process import gpu_environment


def initialize(config, cluster, model_dir, *, failure, watchdog):
    """Makes the devices ready, with all workers of the job or with none.

    Args:
        config: The run's `Config`.
        cluster: The `Cluster`.
        model_dir: The run's `ModelDir`; of the chief, claimed.
        failure: The `LockstepError` that keeps this worker from beginning, or None; the others hear of it.
        watchdog: The process's `Watchdog`.

    Returns:
        The `Runtime`.

    Raises:
        LockstepError: if this worker can't begin, or another one can't, or they aren't alike.
    """
    if failure and cluster.workers == 1:
        raise failure  # before TensorFlow is imported: that takes seconds
    autotune = AutotuneFile(model_dir.autotune).places(model_dir.newest_manifest(), writes=cluster.worker == 0)
    gpu_environment.prepare(deterministic=config.deterministic, autotune=autotune)
    chosen = None
    if not failure:
        with catching() as caught:
            from trainer.distributed.devices import choice

            chosen = choice.choose(config)
        failure = caught.error
    if cluster.workers > 1:
        with watchdog.phase("waiting for the other workers", 1 + config.start_timeout / config.hang_timeout):
            rendezvous(cluster, fingerprint_of(config, chosen), failure, config.start_timeout)
    elif failure:
        raise failure
    from trainer.distributed import runtime

    with watchdog.phase("starting the devices"):
        return runtime.start(config, cluster, chosen)
