"""What the commands on a run do before they use it."""

import pytest

USERS = """
import small_models, sys
print("imported", file=sys.stderr, flush=True)
def model(classes, image_shape):
    return small_models.smooth(classes, image_shape)
"""


@pytest.fixture
def trained(tmp_path, run):
    (tmp_path / "users.py").write_text(USERS)
    done = run("trainer.main", "--dataset=shapes", "--model=users:model", "--batch_size=16", "--max_steps=2",
               "--num_gpus=0", "--export=none", "--model_dir=run", "--warmup_epochs=3")
    assert done.code == 0, done.err
    return done


def test_code_that_a_model_dir_names_is_told_before_it_is_imported(trained, tmp_path, run):
    done = run("trainer", "evaluate", "--model_dir=run", "--num_gpus=0")
    assert done.code == 0 and done.err.count("imported\n") == 1
    told, imported = done.err.index(f"names code, which may be imported: users ({tmp_path / 'users.py'})"), \
        done.err.index("imported\n")
    assert told < imported


def test_a_warm_up_that_is_longer_than_the_run_is_told(trained):
    assert "the warm-up of 2,250 steps is longer than the run, which ends at step 2" in trained.err
