"""What TensorBoard shows of each call of the device loop: how long a step takes, and what the GPUs do meanwhile."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trainer.distributed.devices.peaks import peak_flops
from trainer.models.multiply_adds import multiply_adds
from trainer.reporting.board.gpu_meter import GpuMeter

if TYPE_CHECKING:
    import keras

    from trainer.plan import Job
    from trainer.train.inner_loop import CallReport

_FLOPS_PER_MULTIPLY_ADD = 6  # two forward, and twice that backward: for inputs and for weights


class Speedometer:
    """Turns what is known of a call into scalars.

    Args:
        job: What the run trains.
        model: The model, from which the arithmetic of a step follows.
    """

    def __init__(self, job: Job, model: keras.Model) -> None:
        runtime = job.runtime
        gpus = len(runtime.physical) if runtime.kind.cuda else 0
        self._knows_input = not runtime.kind.cuda
        self._replicas, self._meter = runtime.replicas, GpuMeter(gpus)
        self._full_share_at: float | None = None  # images/s at the GPUs' peak
        peak = peak_flops(runtime.physical[0], runtime.precision) if gpus else None
        # Smaller images and layers that stay are less arithmetic.
        if peak and not job.plan.train_sizes and not job.config.freeze:
            flops = _FLOPS_PER_MULTIPLY_ADD * _multiply_adds(model)
            self._full_share_at = peak * gpus * runtime.workers / flops if flops else None

    def figures(self, call: CallReport) -> dict[str, float]:
        """The scalars of a call, by their tags.

        Args:
            call: The call.

        Returns:
            health/checkpoint_stall_seconds; for calls that don't compile also speed/step_ms, and of it
            speed/compute_share, speed/input_share (on GPUs it is part of compute_share) and speed/host_share;
            speed/images_per_second_per_replica, speed/mfu where the peak is known, and what `GpuMeter.read` returns.
        """
        figures = {"health/checkpoint_stall_seconds": call.stalled}
        if call.seconds is None or not call.images_per_second:
            return figures
        spent = call.seconds
        total = max(spent.total - spent.saving, 1e-9)
        figures |= {"speed/step_ms": 1e3 * total / spent.steps, "speed/compute_share": spent.device / total,
                    "speed/host_share": spent.host / total,
                    "speed/images_per_second_per_replica": call.images_per_second / self._replicas}
        if self._knows_input:
            figures["speed/input_share"] = spent.input / total
        if self._full_share_at:
            figures["speed/mfu"] = call.images_per_second / self._full_share_at
        return figures | {f"speed/{name}": value for name, value in self._meter.read().items()}


def _multiply_adds(model: keras.Model) -> int:
    """The forward pass's, for one image; 0 where a model's layers don't tell."""
    try:
        return multiply_adds(model)
    except (AttributeError, ValueError, TypeError):
        return 0
