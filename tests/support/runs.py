"""Starting real runs, and comparing what two of them wrote."""

import subprocess
import time

import forks
import numpy as np

from trainer.reporting import jsonl


def start(folder, *flags, fresh=False, **more):
    """Starts a run in `folder`/run, with more variables in its environment; `fresh` as in forks.py."""
    return forks.start("trainer.main", *flags, "--model_dir=run", fresh=fresh, more=more, cwd=folder, text=True,
                       stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def finish(process, code):
    """Waits for the end of a process, whose exit code must be `code`. Returns (stdout, stderr)."""
    out, err = process.communicate(timeout=300)
    assert process.returncode == code, out + err
    assert "Traceback" not in err, err
    return out, err


def wait_for_step(process, folder, step):
    """Waits until the metrics of a step are written."""
    path = folder / "run/metrics.jsonl"
    deadline = time.monotonic() + 400
    while time.monotonic() < deadline and process.poll() is None:
        if path.exists() and any(line["step"] >= step for line in jsonl.read(path)):
            return
        time.sleep(0.02)
    raise AssertionError(f"step {step} never came: {process.communicate()}")


def state(folder):
    """(name of the last checkpoint, its variables by name)."""
    import tensorflow as tf

    last = max((folder / "run/checkpoints").glob("step-*"))
    reader = tf.train.load_checkpoint(str(last / "state"))
    names = reader.get_variable_to_shape_map()
    assert len(names) > 10
    return last.name, {name: reader.get_tensor(name) for name in names}


def reported(folder):
    """All of metrics.jsonl but the values that depend on the clock."""
    timed = ("time", "images_per_second", "waiting_share", "all_reduce_share")
    return [{name: value for name, value in line.items() if name not in timed}
            for line in jsonl.read(folder / "run/metrics.jsonl")]


def ledger(folder):
    """Step to ids; checks that every step stands there once."""
    entries = [(line["step"], line["ids"]) for line in jsonl.read(folder / "run/ledger.jsonl")]
    assert [step for step, _ in entries] == list(range(1, len(entries) + 1))
    return dict(entries)


def assert_equal_runs(folder, other):
    """Checks that weights, optimizer, counters, metrics, ledger, the scalars in the event files and the predictions of
    finished runs are the same."""
    from event_files import scalars, values

    (name, variables), (other_name, other_variables) = state(folder), state(other)
    assert name == other_name and variables.keys() == other_variables.keys()
    for variable, value in variables.items():
        np.testing.assert_array_equal(value, other_variables[variable], err_msg=variable)
    assert reported(folder) == reported(other) and ledger(folder) == ledger(other)
    for split in ("train", "eval"):
        steps = scalars(folder / "run/tensorboard", split)
        assert steps == scalars(other / "run/tensorboard", split) and len(steps) == len(set(steps)) > 1
    for tag in ("quality/ece", "health/weights_norm"):
        mine, theirs = (sorted(values(each / "run/tensorboard", "eval", tag)) for each in (folder, other))
        assert mine == theirs and mine, tag
    finished = [(each / "run/result.json").exists() for each in (folder, other)]
    for name in ("predictions.npz", "predictions_validation.npz"):
        files = [each / "run" / name for each in (folder, other)]
        if all(finished) and files[1].exists():
            assert files[0].read_bytes() == files[1].read_bytes(), name
