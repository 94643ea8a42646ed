"""The table of recipes: figures against NumPy, and a toy recipe that is really trained."""

import csv
import json
import subprocess
import sys

import numpy as np
import pytest
from process_environment import ROOT, environment

sys.path.insert(0, str(ROOT))
from benchmarks import recipes  # noqa: E402

RECIPE = ("--dataset=small_data:few", "--model=small_models:compact", "--batch_size=32", "--max_steps=4",
          "--num_gpus=0", "--export=none")


def test_the_interval_of_a_mean_is_students():
    values = [0.94, 0.95, 0.93, 0.945]
    mean, deviation, low, high = recipes.interval(values)
    assert deviation == pytest.approx(np.std(values, ddof=1))
    assert (low + high) / 2 == pytest.approx(mean) and high - mean == pytest.approx(3.182 * deviation / 2)
    assert recipes.interval([0.5]) == (0.5, None, None, None)
    assert recipes.interval([0.4, 0.6] * 50)[3] == pytest.approx(0.5 + 1.96 * np.std([0.4, 0.6] * 50, ddof=1) / 10)


def test_finished_runs_of_the_same_settings_are_one_recipe(tmp_path):
    for seed, (rate, accuracy) in enumerate([(0.1, 0.5), (0.1, 0.7), (0.2, 0.9)]):
        folder = tmp_path / f"run-{seed}"
        folder.mkdir()
        given = {"model": "cnn3", "learning_rate": rate, "seed": seed, "model_dir": str(folder)}
        (folder / "config.json").write_text(json.dumps({"given": given}))
        (folder / "result.json").write_text(json.dumps({
            "eval_accuracy": 0.1, "test_accuracy": accuracy, "images_per_second": 100.0 + seed, "wall_seconds": 5.0,
            "exports": {"h5": {"bytes": 2_000_000}}}))
    (tmp_path / "run-3").mkdir()
    rows = [recipes.row_of(*group) for group in recipes.finished([f"{tmp_path}/run-*"])]
    assert [(row["n"], row["size_mb"]) for row in rows] == [(2, 2.0), (1, 2.0)]
    assert [row["accuracy"] for row in rows] == pytest.approx([0.6, 0.9])
    assert rows[0]["images_per_second"] == 100.5
    recipes.write(rows, tmp_path)
    text = (tmp_path / "recipes.md").read_text()
    assert "| 60.00% ± 14.14%" in text and ", n = 2 | – | 100 | – | 2.00 MB | 5 s |" in text


@pytest.mark.slow
def test_a_toy_recipe_is_trained_once_for_each_seed(tmp_path):
    (tmp_path / "toy.cfg").write_text("\n".join(RECIPE) + "\n")
    words = [sys.executable, str(ROOT / "benchmarks/recipes.py"), "toy.cfg", "--seeds=2", "--out=out", "--",
             "--log_every_steps=2"]
    for _ in range(2):  # the second time all is there
        done = subprocess.run(words, cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        row, = csv.DictReader((tmp_path / "out/recipes.csv").read_text().splitlines())
    results = [json.loads((tmp_path / f"out/toy/seed-{seed}/result.json").read_text()) for seed in (0, 1)]
    assert float(row["accuracy"]) == pytest.approx(np.mean([result["eval_accuracy"] for result in results]))
    assert row["n"] == "2" and float(row["memory_mb"]) > 100 and row["command"].startswith("python -m trainer.main")
    assert {json.loads((tmp_path / f"out/toy/seed-{seed}/config.json").read_text())["given"]["seed"]
            for seed in (0, 1)} == {0, 1}
    assert "n = 2" in done.stdout
