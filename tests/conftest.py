"""What tests share: four logical CPU devices, runtimes on some of them, small data, real processes."""

import dataclasses
import functools
import os
import signal
import subprocess
from pathlib import Path

import forks
import pytest
from process_environment import ROOT, environment  # noqa: F401  tests import it from here

from trainer.config import Config
from trainer.data.sources import shapes
from trainer.device_kind import CPU
from trainer.distributed import runtime as runtime_module
from trainer.plan import Job, make_plan

CIFAR10 = Path(os.environ.get("LOCKSTEP_TEST_CIFAR10", ROOT / ".test-data"))


def pytest_sessionstart(session):
    tf = runtime_module.tf
    tf.config.set_visible_devices([], "GPU")  # the suite tests CPU devices on every machine
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 4)


def pytest_collection_modifyitems(items):
    """Marks tests that run whole commands as slow; puts the longest files first, so that two processes end together."""
    for item in items:
        folder = item.path.relative_to(ROOT / "tests").parts[0]
        if folder in ("system", "launch", "gpu", "browser") or "run" in item.fixturenames:
            item.add_marker(pytest.mark.slow)
    items.sort(key=_position)


def _position(item):
    """0 for the longest files, 1 for the other long ones, 2 for all others."""
    longest, long = ("torture", "test_slurm_cluster", "test_network"), ("system", "launch")
    return 0 if any(name in item.nodeid for name in longest) else 1 if any(name in item.nodeid for name in long) else 2


@pytest.fixture(autouse=True)
def processes(request, monkeypatch):
    """Ends processes that a test leaves running, so that no other test fails; refuses them without the mark `slow`."""
    started, real = [], subprocess.Popen.__init__

    def refuse(*_, **__):
        raise AssertionError("a test that starts a process needs the mark `slow`")

    def start(process, *arguments, **options):
        real(process, *arguments, **options)
        started.append(process)

    monkeypatch.setattr(subprocess.Popen, "__init__", start if request.node.get_closest_marker("slow") else refuse)
    yield
    for process in started:
        if process.poll() is None:
            process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe:
                pipe.close()


def make_runtime(replicas, precision="float32", xla=False, kind=CPU):
    """A `Runtime` on the first logical devices of this process, used as devices of a kind are."""
    names = tuple(f"/device:CPU:{index}" for index in range(replicas))
    strategy = runtime_module.one_process_strategy(names, kind, replicas == 1)
    return runtime_module.Runtime(strategy, names, replicas, 0, 1, precision, xla, kind)


@pytest.fixture(scope="session")
def small():
    """240 and 50 drawn images."""
    return shapes.render_dataset(0, train=240, test=50)


class Trainable:
    """A training loop with everything that it needs, for tests of its parts."""

    def __init__(self, data, replicas=1, *, xla=False, precision="float32", kind=CPU, first_step=0,
                 **settings):
        from trainer.data.pipeline import open_feed
        from trainer.train.state import TrainState
        from trainer.train.step.train_loop import TrainLoop

        self.config = Config(**{"dataset": "shapes", "batch_size": 24, "epochs": 100, **settings})
        assert not self.config.problems()
        self.runtime = make_runtime(replicas, precision, xla, kind)
        self.data, self.plan = data, make_plan(self.config, data.train.size, replicas)
        self.job = Job(self.config, self.plan, self.runtime, data)
        self.state = TrainState(self.job)
        self.feed = open_feed(self.job, first_step=first_step)
        self.loop = TrainLoop(self.job, self.state, self.feed, self.plan.train_size(first_step))

    def train(self, steps):
        """Trains some steps; returns their records as NumPy arrays."""
        records = self.loop(steps)
        return type(records)(*(part if part is None else part.numpy() for part in records))

    def weights(self):
        return self.state.model.get_weights()


@pytest.fixture
def trainable(small):
    """Makes a `Trainable` on the small data."""
    return functools.partial(Trainable, small)


@pytest.fixture
def hangup():
    """SIGHUP, which the processes of a test don't ignore, also where the tests were started by nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield signal.SIGHUP
    signal.signal(signal.SIGHUP, before)


@dataclasses.dataclass
class Ended:
    """How a process ended.

    Args:
        code: Its exit code.
        out, err: What it wrote to stdout and stderr.
    """

    code: int
    out: str
    err: str


def run_module(folder, module, *words, timeout=300, fresh=False, **more):
    """Runs `python -m MODULE WORDS…` to its end, with more variables in its environment; `fresh` as in forks.py."""
    with forks.start(module, *words, fresh=fresh, more=more, cwd=folder, text=True, stdin=subprocess.DEVNULL,
                     stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        try:
            out, err = process.communicate(timeout=timeout)
        finally:
            process.kill()  # does nothing to one that has ended
    return Ended(process.returncode, out, err)


@pytest.fixture
def run(tmp_path):
    """Runs `python -m MODULE WORDS…` in an empty folder to its end; see `run_module`."""
    return functools.partial(run_module, tmp_path)


@pytest.fixture
def cifar10():
    """The folder of the real CIFAR-10."""
    if not (CIFAR10 / "cifar-10-batches-bin" / "test_batch.bin").exists():
        pytest.skip(f"needs CIFAR-10's binary files: unpack cifar-10-binary.tar.gz into {CIFAR10}, or name the folder "
                    "in LOCKSTEP_TEST_CIFAR10")
    return CIFAR10
