"""What a run is: epochs, fractions and replicas as whole steps. Integers only; no TensorFlow.

The examples of a run are one stream: the first epoch's in its order, the second's in its own, and so
on. A step takes the next `batch_size` of the stream, so none is skipped and every batch is full,
also where an epoch ends inside a batch. Epoch e is over at the first step that has seen all of it.
"""

from __future__ import annotations

import dataclasses
import math
from fractions import Fraction
from typing import TYPE_CHECKING

from trainer.config import LARGEST_DEFAULT_BATCH, mixes
from trainer.errors import DataError, UsageError, first_few
from trainer.rules.combinations import indivisible

if TYPE_CHECKING:
    from trainer.config import Config
    from trainer.data.dataset import Dataset
    from trainer.distributed.runtime import Runtime


_STEPS_AN_EPOCH = 10  # at least, where --batch_size isn't given: a hundred in the epochs that a run has by default


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a run does at which step. Steps count from 0; "at step s" means: after s steps.

    Args:
        examples: Size of the training split.
        batch_size: Examples per step, over all replicas: `--accumulate_steps` times `--batch_size`.
        replicas: Number of replicas that share a batch.
        total_steps: Where the run ends.
        warmup_steps: Where the learning rate's warm-up ends.
        learning_rate: The peak, scaled as `--scale_learning_rate` says.
        eval_every: Epochs from one evaluation to the next.
        log_every: Steps from one line of metrics to the next.
        checkpoint_every: Steps from one checkpoint to the next; 0: none by steps.
        passes: Number of passes over the model in which a step goes; each takes as many consecutive rows of the batch.
        train_sizes: (step, side in pixels) from which on `--train_sizes` makes the images so small, in order.
    """

    examples: int
    batch_size: int
    replicas: int
    total_steps: int
    warmup_steps: int
    learning_rate: float
    eval_every: Fraction
    log_every: int
    checkpoint_every: int
    passes: int = 1
    train_sizes: tuple[tuple[int, int], ...] = ()

    @property
    def per_replica_batch_size(self) -> int:
        """Examples per step and replica."""
        return self.batch_size // self.replicas

    @property
    def per_replica_pass_size(self) -> int:
        """Examples per pass and replica."""
        return self.per_replica_batch_size // self.passes

    def epoch(self, step: int) -> float:
        """How often the training split has been seen at `step`."""
        return step * self.batch_size / self.examples

    def evaluates_at(self, step: int) -> bool:
        """Whether the model is evaluated at `step`."""
        return step > 0 and (step == self.total_steps or step == self._next_evaluation(step - 1))

    def logs_at(self, step: int) -> bool:
        """Whether a window of training metrics ends at `step`."""
        return step % self.log_every == 0 or step == self.total_steps

    def train_size(self, step: int) -> int | None:
        """Side of the images in pixels in the step after `step` steps; None: as they are."""
        return next((side for first, side in reversed(self.train_sizes) if first <= step), None)

    def next_stop(self, step: int) -> int:
        """The next step after `step` at which the host has something to do: evaluate, save, change the size or end."""
        stops = [self.total_steps, self._next_evaluation(step), *(first for first, _ in self.train_sizes)]
        if self.checkpoint_every:
            stops.append((step // self.checkpoint_every + 1) * self.checkpoint_every)
        return min(stop for stop in stops if stop > step)

    def _next_evaluation(self, step: int) -> int:
        """The first step after `step` at which an evaluation is due."""
        period = self.eval_every * self.examples / self.batch_size  # in steps
        multiple = step // period + 1
        # Several multiples may fall on one step: the period may be under one.
        while (candidate := _ceil(multiple * period)) <= step:
            multiple += 1
        return candidate

    def warnings(self, config: Config) -> list[str]:
        """A sentence for everything about the plan that a user may not expect.

        Args:
            config: What the plan was made of, as the user gave it.
        """
        warnings = []
        own = self.batch_size // config.accumulate_steps
        if config.batch_size is None and own < LARGEST_DEFAULT_BATCH:
            warnings.append(f"--batch_size isn't given: it is {own} rather than {LARGEST_DEFAULT_BATCH}, "
                            f"so that {self.examples:,} images make {_STEPS_AN_EPOCH} steps an epoch")
        if self.batch_size > self.examples:
            warnings.append(f"a batch of {self.batch_size:,} is more than the {self.examples:,} images to train on: "
                            "each step takes all of them, some several times; a smaller --batch_size takes more steps")
        if self.warmup_steps > self.total_steps:
            warnings.append(f"the warm-up of {self.warmup_steps:,} steps is longer than the run, which ends at step "
                            f"{self.total_steps:,}: a learning rate of {self.learning_rate:g} is never reached")
        return warnings

    def sentence(self) -> str:
        """The arithmetic of the batch, human-readable."""
        factors = [*([f"{self.passes} passes"] if self.passes > 1 else []),
                   *([f"{self.replicas} replicas"] if self.replicas > 1 else []), str(self.per_replica_pass_size)]
        product = f" = {' × '.join(factors)}" if len(factors) > 1 else ""
        per_epoch = self.examples / self.batch_size
        return (f"global batch {self.batch_size:,}{product}; {self.examples:,} examples make {per_epoch:,.6g} steps an "
                f"epoch; {self.epoch(self.total_steps):.3g} epochs are {self.total_steps:,} steps")


@dataclasses.dataclass(frozen=True)
class Job:
    """What a run trains, on what data, and how far: the same from a start's first step to its last.

    Args:
        config: What the user decided.
        plan: What happens at which step.
        runtime: The devices.
        data: The data set.
    """

    config: Config
    plan: Plan
    runtime: Runtime
    data: Dataset

    @property
    def exports_best(self) -> bool:
        """Whether the best weights are exported, and not the last."""
        return self.config.exports_best(self.data.validation is not None)


def make_plan(config: Config, examples: int, replicas: int, microbatch: int | None = None) -> Plan:
    """Turns a configuration into steps.

    Args:
        config: The run's `Config`.
        examples: Size of the training split.
        replicas: Number of replicas.
        microbatch: Rows of a pass, over all replicas, where `--microbatch=auto` found it; None: as `config` says.

    Returns:
        The `Plan`.

    Raises:
        UsageError: if the batch size isn't divisible by the number of replicas or into such passes, or a replica's part
            can't be paired.
        DataError: if there are no examples.
    """
    config = with_batch_size(config, examples)
    given = config.known_batch_size
    if given % replicas:
        raise UsageError(indivisible(given, replicas))
    rows = microbatch or config.microbatch_rows
    sizes = pass_sizes(config, replicas)
    if rows not in sizes:
        raise UsageError(f"--microbatch must divide --batch_size={given} into passes that {replicas} "
                         f"replica{'s' * (replicas > 1)} can share; received {rows}",
                         f"use one of {first_few(sizes)}")
    if mixes(config.augment) and rows // replicas % 2:
        pairing = " and ".join(name for name in config.augment if mixes((name,)))
        flag, wanted = (("batch_size", given + replicas) if rows == given else
                        ("microbatch", given))
        raise UsageError(f"--augment={pairing} joins pairs, so each replica needs an even part of the batch; "
                         f"--{flag}={rows} gives each of {replicas} {rows // replicas}",
                         f"--{flag}={wanted}, for instance")
    if examples < 1:
        raise DataError("the training split is empty", "put at least one example into it")
    batch_size = config.accumulate_steps * given
    steps_per_epoch = Fraction(examples, batch_size)
    total = _steps(config.epochs, steps_per_epoch)
    if config.max_steps is not None:
        total = min(total, config.max_steps)
    return Plan(examples=examples, batch_size=batch_size, replicas=replicas, total_steps=total,
                warmup_steps=_steps(config.warmup_epochs, steps_per_epoch),
                learning_rate=config.learning_rate * _SCALES[config.scale_learning_rate](batch_size / _SCALED_FROM),
                eval_every=_exact(config.eval_every_epochs), log_every=config.log_every_steps,
                checkpoint_every=config.checkpoint_every_steps, passes=batch_size // rows,
                train_sizes=tuple((_steps(epoch, steps_per_epoch), side) for side, epoch in config.size_starts))


def pass_sizes(config: Config, replicas: int) -> list[int]:
    """The numbers of rows that a pass may have, over all replicas, the largest first.

    Args:
        config: The run's settings.
        replicas: Number of replicas, which divides the batch size.
    """
    own = config.known_batch_size // replicas
    return [replicas * rows for rows in range(own, 0, -1) if own % rows == 0]


def with_batch_size(config: Config, examples: int) -> Config:
    """A configuration with a batch size, where none is given: few images still make many steps.

    It is the largest power of two that makes ten steps an epoch, at most 128. It follows from the data alone, so that a
    run has the same batches whenever and on whatever it goes on.

    Args:
        config: The settings.
        examples: Size of the training split.
    """
    most = min(LARGEST_DEFAULT_BATCH, max(2, examples // _STEPS_AN_EPOCH))  # 2: pairs can be joined
    return dataclasses.replace(config, batch_size=config.batch_size or 2 ** (most.bit_length() - 1))


def _one(_: float) -> float:
    return 1.0


_SCALED_FROM = 256  # examples of a step; Goyal et al. 2017, arXiv:1706.02677, §2.1
# Name to the function of a step's examples as a multiple of these, to the factor of the learning rate.
_SCALES = {"none": _one, "linear": float, "sqrt": math.sqrt}


def rate_sentence(config: Config, plan: Plan) -> str | None:
    """What `--scale_learning_rate` did, human-readable; None if it is off."""
    if config.scale_learning_rate == "none":
        return None
    factor = f"{plan.batch_size:,} / {_SCALED_FROM}"
    factor = f"√({factor})" if config.scale_learning_rate == "sqrt" else factor
    return f"learning rate {config.learning_rate:g} × {factor} = {plan.learning_rate:g}"


def _exact(number: float) -> Fraction:
    """0.1 as a user means it: a tenth, not the nearest binary fraction."""
    return Fraction(str(number))


def _steps(epochs: float, steps_per_epoch: Fraction) -> int:
    """The steps in which so many epochs are seen, rounded up."""
    return _ceil(_exact(epochs) * steps_per_epoch)


def _ceil(number: Fraction) -> int:
    return -(-number.numerator // number.denominator)
