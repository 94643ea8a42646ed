"""Starting real runs, and telling whether two of them came to the same."""

import subprocess
import sys

import numpy as np
from conftest import environment
from event_files import scalars

from trainer.reporting import jsonl


def start(folder, *flags, **more):
    """Starts a run in `folder`/run."""
    return subprocess.Popen([sys.executable, "-m", "trainer.main", *flags, "--model_dir=run"], cwd=folder, text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment(**more))


def finish(process, code):
    """Waits for its end, which must have this code."""
    out, err = process.communicate(timeout=300)
    assert process.returncode == code, out + err
    assert "Traceback" not in err, err
    return out, err


def state(folder):
    """(name, every variable) of the last checkpoint."""
    import tensorflow as tf

    last = max((folder / "run/checkpoints").glob("step-*"))
    reader = tf.train.load_checkpoint(str(last / "state"))
    names = reader.get_variable_to_shape_map()
    assert len(names) > 10
    return last.name, {name: reader.get_tensor(name) for name in names}


def reported(folder):
    """All of metrics.jsonl but what depends on the clock."""
    timed = ("time", "images_per_second", "waiting_share", "all_reduce_share")
    return [{name: value for name, value in line.items() if name not in timed}
            for line in jsonl.read(folder / "run/metrics.jsonl")]


def ledger(folder):
    """Step to ids; no step twice, none left out."""
    entries = [(line["step"], line["ids"]) for line in jsonl.read(folder / "run/ledger.jsonl")]
    assert [step for step, _ in entries] == list(range(1, len(entries) + 1))
    return dict(entries)


def assert_equal_runs(folder, other):
    """Weights, optimizer, counters, metrics, ledger and the scalars in the event files are the same."""
    (name, mine), (other_name, theirs) = state(folder), state(other)
    assert name == other_name and mine.keys() == theirs.keys()
    for variable, value in mine.items():
        np.testing.assert_array_equal(value, theirs[variable], err_msg=variable)
    assert reported(folder) == reported(other) and ledger(folder) == ledger(other)
    for split in ("train", "eval"):
        steps = scalars(folder / "run/tensorboard", split)
        assert steps == scalars(other / "run/tensorboard", split) and len(steps) == len(set(steps)) > 1
