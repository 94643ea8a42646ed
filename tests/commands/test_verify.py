"""`verify`: sound and damaged checkpoints and exports, told from outside."""

import pytest

from trainer.commands import verify
from trainer.errors import StorageError
from trainer.storage.manifest import seal


@pytest.fixture
def folder(tmp_path):
    for step in (5, 6):
        checkpoint = tmp_path / f"checkpoints/step-{step:08d}"
        checkpoint.mkdir(parents=True)
        (checkpoint / "state").write_bytes(b"abc")
        seal(checkpoint, {"step": step})
    return tmp_path


def test_what_a_kill_left_of_a_save_is_told_and_no_damage(folder, capsys):
    (folder / "checkpoints/step-00000007").mkdir()
    (folder / "checkpoints/step-00000007/state").write_bytes(b"ab")
    verify.run(verify.Options(model_dir=str(folder)))
    words = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert words == ["sound", "sound", "unfinished"]


@pytest.mark.parametrize("name", ["state", "manifest.json"])
def test_damage_is_named(folder, capsys, name):
    (folder / "checkpoints/step-00000006" / name).write_bytes(b"abd")
    with pytest.raises(StorageError, match="1 of 2 are damaged: step-00000006"):
        verify.run(verify.Options(model_dir=str(folder)))
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["sound", "damaged"]
