"""From flags to devices that work together: this process's, and those of the job's other workers."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from trainer.distributed.consistency import fingerprint_of
from trainer.distributed.devices.autotune import AutotuneFile
from trainer.distributed.rendezvous import rendezvous
from trainer.distributed.wire import TOKEN
from trainer.errors import LockstepError, catching
from trainer.process import gpu_environment
from trainer.process.exit import tell

if TYPE_CHECKING:
    from trainer.config import Config
    from trainer.distributed.cluster import Cluster
    from trainer.distributed.runtime import Runtime
    from trainer.process.watchdog import Watchdog
    from trainer.storage.model_dir import ModelDir


def initialize(config: Config, cluster: Cluster, model_dir: ModelDir, *, failure: LockstepError | None,
               watchdog: Watchdog) -> Runtime:
    """Prepares the devices, on all workers of the job or on none.

    Args:
        config: The settings.
        cluster: The workers of the job.
        model_dir: The run's folder; the chief has claimed it.
        failure: What keeps this worker from beginning, or None; it is sent to the other workers.
        watchdog: Entered.

    Returns:
        The `Runtime`.

    Raises:
        LockstepError: if a worker can't begin, or if the workers' fingerprints differ.
    """
    if failure and cluster.workers == 1:
        raise failure  # before TensorFlow is imported: that takes seconds
    autotune = AutotuneFile(model_dir.autotune).paths(model_dir.newest_manifest(), writes=cluster.worker == 0)
    gpu_environment.prepare(deterministic=config.deterministic, autotune=autotune)
    chosen = None
    if not failure:
        with catching() as caught:
            from trainer.distributed.devices import choice, once

            with once.started_devices_fit(config, autotune and autotune[0]):
                chosen = choice.choose(config)
        failure = caught.error
    if cluster.workers > 1:
        cluster.bypass_proxies()
        if cluster.worker == 0 and cluster.crosses_machines and not os.environ.get(TOKEN):
            tell(f"lockstep: warning: {TOKEN} is not set: any process that reaches {cluster.addresses[0]} can take a "
                 f"worker's place. Set it to the same secret text on all workers (docs/workers.md)")
        with watchdog.phase("waiting for the other workers", 1 + config.start_timeout / config.hang_timeout):
            rendezvous(cluster, fingerprint_of(config, chosen), failure, config.start_timeout)
    elif failure:
        raise failure
    from trainer.distributed import runtime

    with watchdog.phase("starting the devices"):
        return runtime.start(config, cluster, chosen)
