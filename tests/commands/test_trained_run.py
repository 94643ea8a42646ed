"""What the commands on a run do before they use it."""

import pytest
from conftest import run_module

pytestmark = pytest.mark.slow
USERS = """
import small_models, sys
print("imported", file=sys.stderr, flush=True)
def model(classes, image_shape):
    return small_models.smooth(classes, image_shape)
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """(folder of a run, how it ended)."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "users.py").write_text(USERS)
    done = run_module(folder, "trainer.main", "--dataset=small_data:few", "--model=users:model", "--batch_size=16",
                      "--max_steps=2", "--num_gpus=0", "--export=none", "--model_dir=run", "--warmup_epochs=3")
    assert done.code == 0, done.err
    return folder, done


def test_code_that_a_model_dir_names_is_told_before_it_is_imported(trained):
    done = run_module(trained[0], "trainer", "evaluate", "--model_dir=run", "--num_gpus=0")
    assert done.code == 0 and done.err.count("imported\n") == 1
    told, imported = done.err.index(f"names code, which may be imported: users ({trained[0] / 'users.py'})"), \
        done.err.index("imported\n")
    assert told < imported


def test_a_warm_up_that_is_longer_than_the_run_is_told(trained):
    assert "the warm-up of 240 steps is longer than the run, which ends at step 2" in trained[1].err
