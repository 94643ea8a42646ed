import json

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from trainer.reporting import lines
from trainer.reporting.lines import LinesFile
from trainer.reporting.tensorboard import TensorBoardWriter


def record(step):
    return {"step": step, "epoch": step / 10, "loss": 1 / step}


def test_metrics_are_cut_back_to_what_a_checkpoint_knows(tmp_path):
    path = tmp_path / "metrics.jsonl"
    file = LinesFile(path, 0)
    file.write({**record(1), "split": "train"})
    size = file.settle()
    file.write({**record(2), "split": "train"})
    file.close()
    again = LinesFile(path, size)
    again.write({**record(3), "split": "eval"})
    again.close()
    assert [(line["step"], line["split"]) for line in lines.read(path)] == [(1, "train"), (3, "eval")]
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
    assert lines.read(path) == [{"step": 1}]


def scalars(folder, split, tag="loss"):
    """All steps in all files of a split, as TensorBoard reads them without hiding anything."""
    found = []
    for path in sorted((folder / split).iterdir()):
        accumulator = EventAccumulator(str(path), purge_orphaned_data=False)
        accumulator.Reload()
        if tag in accumulator.Tags()["tensors"]:
            found += [event.step for event in accumulator.Tensors(tag)]
    return found


def test_event_files_hold_no_step_twice(tmp_path):
    writer = TensorBoardWriter(tmp_path, {})
    for step in (1, 2):
        writer.write("train", step, {"loss": 1.0, "accuracy": None})
    sizes = writer.settle()
    for step in (3, 4):
        writer.write("train", step, {"loss": 1.0})
    writer.settle()
    writer.close()
    # A run that was killed after step 4 goes on from 2, is killed again, and goes on from 2 again.
    for steps in ((3,), (3, 4, 5)):
        again = TensorBoardWriter(tmp_path, sizes)
        for step in steps:
            again.write("train", step, {"loss": 2.0})
        again.settle()
        again.close()
    assert scalars(tmp_path, "train") == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("left, text", [(5, "0:00:05"), (3725.9, "1:02:05")])
def test_clock(left, text):
    from trainer.reporting.console import _clock

    assert _clock(left) == text
