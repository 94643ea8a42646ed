"""`bench`: images/s on synthetic and real input, for several replica counts, where the time goes, what bounds it."""

import dataclasses
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from trainer.commands.common.verdict import reading_rate, verdict
from trainer.config import LARGEST_DEFAULT_BATCH, Config
from trainer.distributed.cluster import Cluster
from trainer.errors import DeviceError
from trainer.options import Checked, option
from trainer.process import host
from trainer.process.exit import printable, say, tell
from trainer.process.libraries.children import command_of
from trainer.rules.combinations import needs_data_dir

if TYPE_CHECKING:
    from trainer.distributed.runtime import Runtime

_NOT_MEASURED = ("replicas", "seconds", "repeats", "json")


@dataclasses.dataclass(frozen=True)
class Options(Checked):
    """python -m trainer bench: the training step as `trainer.main` runs it, timed; each count in its own process."""

    replicas: tuple[str, ...] = option(("1", "2", "4"), "comma list of replica counts: GPUs, or logical devices on a "
                                       "machine without GPUs")
    dataset: str = Config.__dataclass_fields__["dataset"]
    data_dir: str = Config.__dataclass_fields__["data_dir"]
    model: str = Config.__dataclass_fields__["model"]
    batch_size: int = option(LARGEST_DEFAULT_BATCH, "global batch size in examples; divisible by each number of "
                             "replicas", least=1)
    augment: tuple[str, ...] = Config.__dataclass_fields__["augment"]
    input: str = Config.__dataclass_fields__["input"]
    optimizer: str = Config.__dataclass_fields__["optimizer"]
    num_gpus: int = option(-1, "-1: measure on GPUs if there are any; 0: on the CPU", least=-1, most=0)
    precision: str = Config.__dataclass_fields__["precision"]
    xla: str = Config.__dataclass_fields__["xla"]
    seconds: float = option(1.0, "seconds of each timed stretch", above=0)
    repeats: int = option(5, "number of timed stretches; the median, the least and the most are printed", least=1)
    json: bool = option(False, "print a JSON object per replica count and line")

    def problems(self) -> list[str]:
        """All that is wrong with the values, as `Checked.problems` describes it."""
        problems = super().problems() + needs_data_dir(self.dataset, self.data_dir)
        if wrong := [text for text in self.replicas if not text.isdecimal() or int(text) < 1]:
            problems.append(f"--replicas is a comma list of whole numbers above 0; received {','.join(wrong)!r}")
        if not self.replicas:
            problems.append("--replicas names no number")
        return problems


def run(options: Options) -> None:
    """Prints a table, a row per replica count."""
    if len(options.replicas) == 1:
        _show([_measure(options, int(options.replicas[0]))], options)
        return
    rows = []
    for count in options.replicas:
        # Logical devices can't change once TensorFlow has started.
        child = subprocess.run([*command_of("trainer"), "bench", *_arguments(options), f"--replicas={count}", "--json"],
                               capture_output=True, text=True, errors="replace")
        if child.returncode:
            if rows:
                _show(rows, options)
            tell(child.stderr.rstrip("\n"))
            # With fewer GPUs than the next count asks for, all counts that can be measured have been.
            sys.exit(0 if child.returncode == DeviceError.code and rows else child.returncode)
        rows.append(json.loads(child.stdout.strip().splitlines()[-1]))
    _show(rows, options)


def _arguments(options: Options) -> list[str]:
    """The options as arguments of a command line, without --replicas and --json."""
    values = {name: value for name, value in dataclasses.asdict(options).items() if name not in ("replicas", "json")}
    return [f"--{name}={','.join(value) if isinstance(value, (list, tuple)) else value}"
            for name, value in values.items()]


def _measure(options: Options, count: int) -> dict[str, Any]:
    """Starts `count` replicas, and measures the step on them."""
    from trainer.distributed import runtime
    from trainer.distributed.devices import choice

    gpus = options.num_gpus != 0 and choice.gpu_count() > 0
    shared = {name: value for name, value in dataclasses.asdict(options).items() if name not in _NOT_MEASURED}
    devices = {"num_gpus": count} if gpus else {"num_gpus": 0, "virtual_devices": count if count > 1 else 0}
    config = Config(**{**shared, **devices}, epochs=1e6)
    return _measure_on(runtime.start(config, Cluster()), config, options)


def _measure_on(runtime: "Runtime", config: Config, options: Options) -> dict[str, Any]:
    """Times the step on real input, on one batch again and again and on next to no examples, and its parts alone.

    Returns:
        What was measured: a row of the table, as `--json` prints it.
    """
    from trainer.data.dataset import load
    from trainer.data.pipeline import iterate, open_feed
    from trainer.plan import Job, make_plan
    from trainer.process.tf_import import tf
    from trainer.train.state import TrainState
    from trainer.train.step.all_reduce import sums_vectors
    from trainer.train.step.train_loop import TrainLoop

    data = load(config)
    plan = make_plan(config, data.train.size, runtime.replicas)
    job = Job(config, plan, runtime, data)
    state = TrainState(job)
    real, by_host = (open_feed(dataclasses.replace(job, config=dataclasses.replace(config, input=location)),
                               first_step=0) for location in (config.input, "host"))
    same = [iterate(tf.data.Dataset.from_tensors(next(iterator)).repeat(), 1, device, runtime.kind)
            for iterator, device in zip(by_host.iterators, runtime.devices, strict=True)]
    synthetic = by_host._replace(iterators=same)

    def read_one(count: tf.Tensor) -> tf.Tensor:
        for iterator in real.iterators:
            next(iterator)
        return count + 1

    @tf.function(autograph=False)
    def read_batches(steps: tf.Tensor) -> tf.Tensor:
        return tf.while_loop(lambda count: count < steps, read_one, (tf.constant(0),))[0]

    def read(steps: int) -> Any:
        return real.positions.take(steps) if real.positions else read_batches(tf.constant(steps))

    began = time.perf_counter()
    small = dataclasses.replace(config, batch_size=2 * runtime.replicas, input="host")
    least = Job(small, make_plan(small, data.train.size, runtime.replicas), runtime, data)
    functions: dict[str, Callable[..., Any]] = {
        "real_step": TrainLoop(job, state, real), "synthetic_step": TrainLoop(job, state, synthetic),
        "least_step": TrainLoop(least, state, open_feed(least, first_step=0)), "input_alone_step": read}
    if runtime.replicas > 1:
        reduce = sums_vectors(job, state)
        functions["all_reduce"] = lambda steps: reduce(tf.constant(steps))
    times = {name: _time(function, options) for name, function in functions.items()}
    result: dict[str, Any] = {"replicas": runtime.replicas, "devices": runtime.sentence(), "model": config.model,
                              "batch_size": options.batch_size, "dataset": config.dataset,
                              **({"cores": host.cores()} if data.train.decodes else {})}
    for name, seconds in times.items():
        result[f"{name}_ms"] = [round(1e3 * value, 4) for value in sorted(seconds)]
        if name.endswith("_step") and name != "least_step":
            rate = round(options.batch_size / statistics.median(seconds), 1)
            result[f"{name.removesuffix('_step')}_images_per_second"] = rate
    return {**result, "verdict": verdict(result), "wall_seconds": round(time.perf_counter() - began, 1)}


def _time(function: Callable[..., Any], options: Options) -> list[float]:
    """Seconds per step of several stretches, after one that compiles and two that find their length."""
    from trainer.process.tf_import import tf

    def stretch(count: int) -> float:
        began = time.perf_counter()
        for tensor in tf.nest.flatten(function(count)):
            if tensor is not None:  # no ids without a ledger
                tensor.numpy()
        return (time.perf_counter() - began) / count

    stretch(1)
    count = max(1, min(5, int(options.seconds / stretch(2))))
    count = max(1, min(100_000, int(options.seconds / stretch(count))))
    return [stretch(count) for _ in range(options.repeats)]


def _show(rows: Sequence[dict[str, Any]], options: Options) -> None:
    """Prints the results, as JSON or as a table."""
    if options.json:
        for row in rows:
            say(json.dumps(row))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console, first = Console(highlight=False, markup=False, emoji=False), rows[0]
    table = Table("replicas", "images/s", "least", "most", "synthetic", "step ms", "input ms", "waits",
                  title=Text(printable(f"{first['model']}, batch {first['batch_size']}, {first['dataset']}")),
                  caption="synthetic: images/s on one batch again and again; input: reading alone; waits: the share "
                  "of a step that better input could save")
    for column in table.columns:
        column.justify = "right"
    for row in rows:
        step, bare, alone = (statistics.median(row[f"{name}_step_ms"]) for name in ("real", "synthetic", "input_alone"))
        slowest, fastest = (1e3 * row["batch_size"] / row["real_step_ms"][end] for end in (-1, 0))
        table.add_row(str(row["replicas"]), f"{row['real_images_per_second']:,.0f}", f"{slowest:,.0f}",
                      f"{fastest:,.0f}", f"{row['synthetic_images_per_second']:,.0f}", f"{step:.3g}", f"{alone:.3g}",
                      f"{max(0.0, step - bare) / step:.0%}")
    console.print(table)
    for row in rows:
        reading = f"; {reading_rate(row)}" if "cores" in row else ""
        say(f"{row['replicas']}: {row['devices']}; {row['verdict']}{reading}")
