"""What the keeper does when a save can't even begin."""

import pytest

from trainer.checkpoint.manager import Keeper
from trainer.errors import BusyError
from trainer.reporting.console import Console
from trainer.storage.model_dir import ModelDir


def test_a_save_that_could_not_begin_is_told_and_is_no_save(trainable, tmp_path):
    run, model_dir = trainable(), ModelDir(tmp_path)
    model_dir.lock()
    keeper = Keeper(run.config, run.runtime, model_dir, Console(quiet=True), run.data, run.plan, run.state)
    try:
        assert keeper.settled()
        (tmp_path / ".lock/00000009").write_text("{}")  # somebody thought this run dead
        keeper.save(0)
        for ask in (keeper.check, keeper.wait):
            with pytest.raises(BusyError, match="was taken over"):
                ask()
        assert not keeper.settled()  # so no signal may end the process as if all were saved
    finally:
        keeper.close()
        model_dir.unlock()
