"""What the checkpoint manager does when a save can't even begin."""

import pytest

from trainer.checkpoint.checkpoints import Checkpoints
from trainer.checkpoint.manager import CheckpointManager
from trainer.errors import BusyError, FirstFailure
from trainer.storage.model_dir import ModelDir


def test_a_save_that_could_not_begin_is_told_and_is_no_save(trainable, tmp_path):
    made, model_dir, failures = trainable(), ModelDir(tmp_path), FirstFailure()
    model_dir.lock()
    manager = CheckpointManager(Checkpoints(model_dir.checkpoints), made.state, lambda step: ({}, ()),
                                model_dir.require_lock, failures=failures, step=0, writes=True,
                                every_steps=0, every_minutes=0)
    try:
        assert manager.wait_until_finished()
        (tmp_path / ".lock/00000009").write_text("{}")  # somebody thought this run dead
        manager.save(0)
        for ask in (manager.check, manager.wait):
            with pytest.raises(BusyError, match="was taken over"):
                ask()
        assert not manager.wait_until_finished()  # so no signal may end the process as if all were saved
    finally:
        manager.close()
        model_dir.unlock()
