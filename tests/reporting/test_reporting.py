"""metrics.jsonl, event files and plots: cut back to what a checkpoint knows, no step twice."""

import json

import numpy as np
import pytest
from event_files import scalars
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from trainer.data.augment.preview import Samples
from trainer.process.tf_import import tf
from trainer.reporting import jsonl, plots
from trainer.reporting.jsonl import LinesFile
from trainer.reporting.reporter import Reporter
from trainer.reporting.tensorboard import TensorBoardWriter
from trainer.storage.model_dir import ModelDir


def record(step):
    return {"step": step, "epoch": step / 10, "loss": 1 / step}


def test_metrics_are_cut_back_to_what_a_checkpoint_knows(tmp_path):
    path = tmp_path / "metrics.jsonl"
    file = LinesFile(path, 0)
    file.write({**record(1), "split": "train"})
    size = file.flush()
    file.write({**record(2), "split": "train"})
    file.close()
    again = LinesFile(path, size)
    again.write({**record(3), "split": "eval"})
    again.close()
    assert [(line["step"], line["split"]) for line in jsonl.read(path)] == [(1, "train"), (3, "eval")]
    assert json.loads(path.read_text().splitlines()[0])["loss"] == 1


def test_a_metrics_file_shorter_than_the_checkpoint_knows_is_not_padded(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 1}\n')
    file = LinesFile(path, 500)
    file.close()
    assert file.missing == 488
    assert path.read_bytes() == b'{"step": 1}\n'


def test_a_line_that_was_cut_off_is_not_read(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 1}\n{"ste')
    assert jsonl.read(path) == [{"step": 1}]


@settings(max_examples=200, deadline=None)
@given(before=st.lists(st.binary(max_size=30), max_size=4), size=st.integers(0, 200))
def test_any_bytes_in_a_metrics_file(tmp_path_factory, before, size):
    path = tmp_path_factory.mktemp("any") / "metrics.jsonl"
    path.write_bytes(b'{"step": 1, "split": "train", "loss": 2.0, "epoch": 0.1}\n' + b"\n".join(before))
    assert all(isinstance(line, dict) for line in jsonl.read(path))
    there = path.read_bytes()
    file = LinesFile(path, size)
    file.write({"step": 2, "loss": float("nan")})
    file.close()
    kept = there[:size] if size <= len(there) else there[:there.rfind(b"\n") + 1]
    assert path.read_bytes() == kept + b'{"step": 2, "loss": null}\n'
    assert file.missing == max(0, size - len(there))


@pytest.mark.parametrize("line", ["not json", '{"split": "eval"}', '{"split": 3, "loss": "x", "epoch": 1}', "[1, 2]",
                                  '{"split": "eval", "epoch": 1, "loss": null, "accuracy": null}'])
def test_curves_are_drawn_of_what_can_be_read(tmp_path, line):
    whole = {"split": "eval", "epoch": 1, "loss": 0.5, "accuracy": 0.5, "train_loss": 0.4, "train_accuracy": 0.6}
    path = tmp_path / "metrics.jsonl"
    path.write_text(f"{line}\n{json.dumps(whole)}\n")
    plots.plot_curves(path, tmp_path / "report/curves.png", "test")
    assert (tmp_path / "report/curves.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("count, shape", [(8, (32, 32, 3)), (2, (20, 45, 1)), (1, (60, 12, 3))])
def test_samples_are_drawn_as_they_are(tmp_path, count, shape):
    images = np.full((count, *shape), 200, np.uint8)
    images[0] = (250, 20, 30)[:shape[-1]]
    names = [f"90% ${number}, 10% b" for number in range(count)]
    plots.plot_samples(Samples(images, images, names, names), tmp_path / "samples.png")
    drawn = np.asarray(Image.open(tmp_path / "samples.png").convert("RGB"))
    colour = images[0, 0, 0] if shape[-1] == 3 else images[0, 0, 0].repeat(3)
    first = np.all(drawn == colour, -1)
    heights, widths = (np.sum(np.sum(first, axis) > 20) for axis in (1, 0))  # names have no such rows and columns
    longer, shorter = 1.25 * 120, 1.25 * 120 * min(shape[:2]) / max(shape[:2])  # inches at 120 dots
    height, width = (longer, shorter) if shape[0] > shape[1] else (shorter, longer)
    assert abs(heights - 2 * height) <= 4 and abs(widths - width) <= 2  # above as it is, below as training sees it


def test_event_files_hold_no_step_twice(tmp_path):
    writer = TensorBoardWriter(tmp_path, {})
    for step in (1, 2):
        writer.write("train", step, {"loss": 1.0, "accuracy": None})
    sizes = writer.flush()
    for step in (3, 4):
        writer.write("train", step, {"loss": 1.0})
    writer.flush()
    writer.close()
    # A run that was killed after step 4 goes on from 2, is killed again, and goes on from 2 again.
    for steps in ((3,), (3, 4, 5)):
        again = TensorBoardWriter(tmp_path, sizes)
        for step in steps:
            again.write("train", step, {"loss": 2.0})
        again.flush()
        again.close()
    assert scalars(tmp_path, "train") == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("began, tags", [("loss", ["loss"]), ("quality/loss", ["quality/loss"]),
                                         (None, ["quality/loss"])])
def test_a_run_goes_on_under_the_tags_that_it_began_with(tmp_path, began, tags):
    first = tf.summary.create_file_writer(str(tmp_path / "train"))
    with first.as_default():
        tf.summary.image("samples/before", np.zeros((1, 8, 8, 3), np.uint8), step=0)
        if began:  # as versions before tags had groups wrote it
            tf.summary.scalar(began, 1.0, step=1)
    first.close()
    sizes = {f"train/{path.name}": path.stat().st_size for path in (tmp_path / "train").iterdir()}
    for step in (2, 3):  # it is the first file that tells: the second start's is one of two
        again = TensorBoardWriter(tmp_path, sizes)
        again.write("train", step, {"loss": 1.0, "speed/new": 1.0})
        sizes = again.flush()
        again.close()
    steps = [1, 2, 3] if began else [2, 3]
    assert {tag: scalars(tmp_path, "train", tag) for tag in ("loss", "quality/loss")} == {
        **dict.fromkeys(("loss", "quality/loss"), []), **dict.fromkeys(tags, steps)}
    assert scalars(tmp_path, "train", "speed/new") == [2, 3]


def test_event_files_that_are_damaged_or_gone_end_no_start(tmp_path):
    (tmp_path / "train").mkdir()
    (tmp_path / "train/events.out.tfevents.1.a").write_bytes(bytes(range(200)))
    writer = TensorBoardWriter(tmp_path, {"train/events.out.tfevents.1.a": 200, "train/events.out.tfevents.2.a": 50})
    assert writer.missing == 50
    writer.write("train", 1, {"loss": 1.0})
    writer.close()


@pytest.mark.parametrize("left, text", [(5, "0:00:05"), (3725.9, "1:02:05")])
def test_clock(left, text):
    from trainer.reporting.console import _clock

    assert _clock(left) == text


def test_a_ledger_that_is_left_out_for_a_while_keeps_what_it_has(tmp_path):
    model_dir, sizes = ModelDir(tmp_path), None
    for step, ledger in enumerate([True, False, True, False]):
        reporter = Reporter(model_dir, None, valid=sizes, first_step=step, total_steps=99, ledger=ledger,
                            evaluated=None, evaluated_name="test", speed=None)
        sizes = None
        for number in (step, step + 1):  # a checkpoint between them, and the second step is lost
            if ledger:
                reporter.ledger(number, np.array([[7]]))
            sizes = sizes or reporter.flush()[0]
        reporter.close()
    assert [line["step"] for line in jsonl.read(model_dir.ledger)] == [1, 3]
