"""`--dry_run`: everything a run does is tried, its cost is told, and nothing stays."""

import re

from trainer.storage.model_dir import ModelDir


def test_a_dry_run_tries_everything_and_leaves_nothing(run, tmp_path):
    done = run("trainer.main", "--dataset=small_data:few", "--model=small_models:smooth", "--virtual_devices=2",
               "--epochs=20", "--keep_checkpoints=4", "--schedule=cosine", "--dry_run", "--model_dir=runs/mine")
    assert done.code == 0, done.out + done.err
    assert "resuming from step 1" in done.out
    assert "a resume and the exports (h5, keras, saved_model) work. The run would take:" in done.out
    assert re.search(r"  time    about .*: 200 steps of .* ms \(.* images/s\), 20 evaluations of ", done.out)
    assert re.search(r"  memory  \d\.\d\d GB of the host's", done.out)
    assert re.search(r"  disk    about .* MB in runs/mine, where .* GB are free: 6 checkpoints of ", done.out)
    assert not list(tmp_path.iterdir())
    assert "model.keras" not in done.out  # no path of what is gone


def test_a_dry_run_fails_as_the_run_would_and_leaves_a_run_as_it_is(run, tmp_path):
    model_dir = ModelDir(tmp_path / "run")
    model_dir.root.mkdir()
    model_dir.result.write_text("{}")
    done = run("trainer.main", "--dataset=small_data:few", "--model=small_models:operators", "--export=h5", "--dry_run",
               "--model_dir=run")
    assert done.code == 74
    assert "the h5 export can't be loaded again" in done.err
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    assert [path.name for path in model_dir.root.iterdir()] == ["result.json"]
