"""`lr_find`: rising learning rates on a copy of the state, a picture of the losses, and the rate to use."""

import dataclasses
import json
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from trainer.config import Config
from trainer.distributed.cluster import Cluster
from trainer.errors import UsageError
from trainer.options import option
from trainer.process.exit import say, tell

if TYPE_CHECKING:
    from trainer.plan import Job
    from trainer.train.optimizers import RangeTest

_CALL = 10  # steps of a call of the device loop: how late a loss that grows is seen
_SMOOTHING = 0.9  # share that the mean of the losses before keeps
_DIVERGED = 4.0  # a loss of so many times the least ends the test
_BELOW = 10.0  # the suggestion is the rate of the least loss divided by this
_FALL = 0.005  # share of the first losses by which the loss must fall for a suggestion
_LAST = 0.1  # share of the steps that are the highest rates


@dataclasses.dataclass(frozen=True)
class Options(Config):
    """python -m trainer lr_find --FLAGS, those of a run: tries learning rates on a copy of its state, suggests one."""

    min_rate: float = option(1e-5, "learning rate of the first step", above=0)
    max_rate: float = option(10.0, "learning rate of the last step", above=0)
    num_steps: int = option(300, "number of steps; each has a learning rate that is higher than the one before by the "
                            "same factor", least=20)
    checkpoint: str = option("none", "weights to start from; none: a new run's; latest, best or a step: those of a "
                             "checkpoint in --model_dir", choices=("none", "latest", "best"),
                             pattern=(r"\d+", "a step"))
    picture: str = option("lr_find.png", "PNG file to write")
    json: bool = option(False, "print a JSON object")

    def problems(self) -> list[str]:
        """All that is wrong with the values, as `Checked.problems` describes it."""
        problems = super().problems()
        if self.min_rate >= self.max_rate:
            problems.append(f"--min_rate must be below --max_rate; received {self.min_rate:g} and {self.max_rate:g}")
        if not self.picture:
            problems.append("--picture is the name of a PNG file; received ''")
        return problems


def run(options: Options) -> None:
    """Trains for some steps on a state that is thrown away; prints the suggestion and writes the picture.

    Raises:
        LockstepError: as training does; UsageError also if the checkpoint is of another model.
    """
    from trainer.distributed import runtime

    config = Config.from_mapping(dataclasses.asdict(options))
    if options.strategy == "multi_worker":
        raise UsageError("lr_find computes in one process; received --strategy=multi_worker",
                         "leave --strategy out; the batches are the same")
    started = runtime.start(config, Cluster())
    for warning in started.warnings:
        tell(f"lockstep: warning: {warning}")
    job, test = _prepare(config, started, options)
    rates, losses = _train(job, test, options)
    found = {**_suggest(rates, losses, job), "steps": len(rates), "picture": options.picture, "rates": rates,
             "losses": [loss if math.isfinite(loss) else None for loss in losses]}
    _draw(rates, losses, found["learning_rate"], options.picture)
    if options.json:
        say(json.dumps(found))
    else:
        say(f"{job.runtime.sentence()}; {job.plan.sentence().partition(';')[0]}")
        _show(found, options)


def _prepare(config: Config, started: Any, options: Options) -> "tuple[Job, RangeTest]":
    """The data, the plan and the learning rates."""
    from trainer.data.dataset import load
    from trainer.plan import Job, make_plan, with_batch_size
    from trainer.train import microbatch
    from trainer.train.optimizers import RangeTest

    data = load(config)
    for warning in data.warnings:
        tell(f"lockstep: warning: {warning}")
    config = dataclasses.replace(with_batch_size(config, data.train.size), epochs=1e6, max_steps=None)
    passes = microbatch.decide(config, data, started, lambda: None)
    plan = make_plan(config, data.train.size, started.replicas, passes)
    return Job(config, plan, started, data), RangeTest(options.min_rate, options.max_rate, options.num_steps)


def _train(job: "Job", test: "RangeTest", options: Options) -> tuple[list[float], list[float]]:
    """(the learning rates of the steps, their losses); ends before the last step if the loss grows without end."""
    from trainer.checkpoint.checkpoints import Checkpoints
    from trainer.data.pipeline import open_feed
    from trainer.storage.model_dir import ModelDir
    from trainer.train.resume import initialize_weights
    from trainer.train.state import TrainState
    from trainer.train.step.train_loop import TrainLoop

    state = TrainState(job, schedule=test)
    if options.checkpoint != "none":
        checkpoints = Checkpoints(ModelDir(job.config.model_dir).checkpoints)
        checkpoints.restore_all(state.variables(), checkpoints.find(options.checkpoint))
    else:
        initialize_weights(job, state, tell)
    test.first = int(state.optimizer.iterations.numpy())
    loop = TrainLoop(job, state, open_feed(job, first_step=int(state.step.numpy())))
    rates: list[float] = []
    losses: list[float] = []
    while len(losses) < options.num_steps and not _has_diverged(losses):
        records = loop(min(_CALL, options.num_steps - len(losses)))
        rates += _floats(records.learning_rate)
        losses += _floats(records.loss)
    return rates, losses


def _floats(tensor: Any) -> list[float]:
    return [float(value) for value in tensor.numpy()]


def _has_diverged(losses: Sequence[float]) -> bool:
    """Whether the loss isn't finite, or has grown to several times its least."""
    means = smooth(losses)
    return bool(means) and (not math.isfinite(losses[-1]) or means[-1] > _DIVERGED * min(means))


def smooth(losses: Sequence[float]) -> list[float]:
    """Means of the losses up to each step, in which a loss counts less the longer ago it was, and all of it at first.

    The bias correction is that of Adam (Kingma & Ba 2015, arXiv:1412.6980, section 3). It ends before the first loss
    that isn't finite.

    Args:
        losses: The loss of each step.
    """
    means, mean = [], 0.0
    for count, loss in enumerate(losses, 1):
        if not math.isfinite(loss):
            break
        mean = _SMOOTHING * mean + (1 - _SMOOTHING) * loss
        means.append(mean / (1 - _SMOOTHING**count))
    return means


def _suggest(rates: Sequence[float], losses: Sequence[float], job: "Job") -> dict[str, Any]:
    """What the losses say.

    Returns:
        learning_rate, the value for the flag, or None if the loss never fell; least_loss, the least of the smoothed
        losses; rate_of_least_loss; ended_early, whether the loss grew without end; and at_the_end, whether the least
        loss is that of the highest rates.
    """
    means = smooth(losses)
    least = min(range(len(means)), key=means.__getitem__, default=0)
    scale = job.plan.learning_rate / job.config.learning_rate  # what --scale_learning_rate multiplies the flag by
    fell = least > 0 and means[least] < (1 - _FALL) * means[min(least, _CALL)]
    return {"learning_rate": float(f"{rates[least] / _BELOW / scale:.2g}") if fell else None,
            "least_loss": means[least] if means else None, "rate_of_least_loss": rates[least],
            "ended_early": _has_diverged(losses), "at_the_end": least >= (1 - _LAST) * (len(losses) - 1)}


def _show(found: dict[str, Any], options: Options) -> None:
    """Prints what the test found, for a person."""
    say(f"{found['steps']} steps, learning rates from {options.min_rate:g} to {found['rates'][-1]:.2g}: the loss was "
        f"least at {found['rate_of_least_loss']:.2g}" if found["least_loss"] is not None
        else "the loss was not finite at the first step")
    if found["learning_rate"] is None:
        say("no suggestion: the loss never fell; try more --num_steps, or a lower --min_rate")
        return
    if found["at_the_end"] and not found["ended_early"]:
        say("the loss still fell at the highest rates: a higher --max_rate may find a better one")
    say(f"use: --learning_rate={found['learning_rate']:g}   (a tenth of the rate of the least loss)\n"
        f"picture: {found['picture']}")


def _draw(rates: Sequence[float], losses: Sequence[float], suggestion: float | None, path: str) -> None:
    from trainer.reporting.plots import plot_range_test

    plot_range_test(rates, losses, smooth(losses), suggestion, path)
