"""`lr_find`: rising rates on a copy of the state, and what their losses say."""

import json

import numpy as np
import pytest
import runs

from trainer.commands.lr_find import Options, _suggest, smooth
from trainer.config import Config
from trainer.errors import UsageError
from trainer.flags import parse
from trainer.plan import Job, make_plan
from trainer.reporting import jsonl

FLAGS = ("--dataset=small_data:few", "--model=small_models:smooth", "--batch_size=64", "--optimizer=sgd",
         "--momentum=0", "--num_gpus=0")
RATES = [10 ** (power / 10 - 4) for power in range(50)]


def job(**settings):
    config = Config(**settings)
    return Job(config, make_plan(config, 1280, 1), None, None)


def found(losses, **settings):
    return _suggest(RATES[:len(losses)], losses, job(**settings))


def test_smoothed_losses_are_means_with_falling_weights():
    losses = np.random.default_rng(0).exponential(size=40)
    for count, mean in enumerate(smooth(losses.tolist()), 1):
        weights = 0.9 ** np.arange(count)[::-1]
        assert mean == pytest.approx(np.average(losses[:count], weights=weights))
    assert len(smooth([1.0, 2.0, float("nan"), 1.0])) == 2 and smooth([]) == []


def test_a_tenth_of_the_rate_of_the_least_loss_is_suggested():
    losses = [2.3] * 20 + [2.3 - 0.1 * step for step in range(1, 16)] + [99.0] * 5
    answer = found(losses)
    assert answer["rate_of_least_loss"] == RATES[34] and answer["learning_rate"] == float(f"{RATES[24]:.2g}")
    assert answer["ended_early"] and not answer["at_the_end"]


def test_the_flag_is_what_is_scaled_afterwards():
    losses = [2.3] * 20 + [1.0] * 20
    scaled = found(losses, batch_size=512, scale_learning_rate="linear")["learning_rate"]
    assert scaled == pytest.approx(found(losses)["learning_rate"] / 2, rel=0.05)


@pytest.mark.parametrize("losses", [[2.3] * 50, [2.3 + 0.01 * step for step in range(50)], [float("nan")], []])
def test_nothing_is_suggested_where_the_loss_never_fell(losses):
    assert _suggest(RATES[:max(1, len(losses))], losses, job())["learning_rate"] is None


def test_a_loss_that_falls_up_to_the_end_is_told():
    assert found([3 - 0.05 * step for step in range(50)])["at_the_end"]


@pytest.mark.parametrize("words, part", [
    (["--min_rate=1", "--max_rate=0.1"], "--min_rate must be below --max_rate"), (["--num_steps=5"], "at least 20"),
    (["--picture="], "--picture is the name"), (["--checkpoint=first"], "--checkpoint"), (["--epochs=0"], "above 0")])
def test_wrong_flags(words, part):
    with pytest.raises(UsageError, match=part):
        parse(Options, words)


@pytest.mark.slow
def test_it_trains_a_copy_at_rising_rates(run, tmp_path):
    runs.finish(runs.start(tmp_path, *FLAGS, "--max_steps=31", "--export=none", "--learning_rate=0.1",
                           "--checkpoint_every_steps=30", "--log_every_steps=1"), 0)
    losses = [line["loss"] for line in jsonl.read(tmp_path / "run/metrics.jsonl") if line["split"] == "train"]
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    words = (*FLAGS, "--min_rate=0.001", "--max_rate=1000", "--num_steps=40", "--json")
    fresh = run("trainer", "lr_find", *words)
    assert fresh.code == 0, fresh.err
    answer = json.loads(fresh.out)
    rates = np.array(answer["rates"])
    np.testing.assert_allclose(rates, np.geomspace(0.001, 1000, 40)[:len(rates)], rtol=1e-4)
    assert 0.001 < answer["learning_rate"] < 10 and answer["losses"][0] == pytest.approx(losses[0])
    assert (tmp_path / "lr_find.png").read_bytes()[:4] == b"\x89PNG"
    trained = run("trainer", "lr_find", *words, "--model_dir=run", "--checkpoint=30", "--picture=other.png")
    assert trained.code == 0, trained.err
    assert json.loads(trained.out)["rates"][0] == pytest.approx(0.001)
    assert json.loads(trained.out)["losses"][0] == pytest.approx(losses[30])
    assert {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()} == before
    missing = run("trainer", "lr_find", *words, "--model_dir=run", "--checkpoint=7")
    assert missing.code == 65 and "fix: " in missing.err
    assert not (tmp_path / "runs").exists(), "it wrote into a run's folder"
