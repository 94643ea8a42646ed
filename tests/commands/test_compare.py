"""`compare`: the same examples, paired; and what is said where they aren't the same."""

import json

import numpy as np
import pytest
from finished_runs import predictions, write_run

from trainer.__main__ import main
from trainer.quality.intervals import mcnemar

FIRST, SECOND = np.arange(60) >= 20, np.arange(60) >= 6  # right on 40, and on these and 14 more


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """A folder with two runs, which is the working directory."""
    monkeypatch.chdir(tmp_path)
    write_run(tmp_path / "one", predictions(FIRST), seed=1, augment=("flip",))
    write_run(tmp_path / "[red]two", predictions(SECOND), seed=2)
    return tmp_path


def compared(capsys, *words):
    assert main(["compare", *words, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_two_runs_on_the_same_examples(runs, capsys):
    found = compared(capsys, "one", "[red]two")
    assert [(run["run"], run["accuracy"], run["note"]) for run in found["runs"]] == [
        ("one", 40 / 60, ""), ("[red]two", 54 / 60, "")]
    assert found["runs"][0]["accuracy_interval"] == pytest.approx([0.540624, 0.772736], abs=2e-3)
    assert found["settings"] == {"seed": [1, 2], "augment": [["flip"], []]}
    (pair,) = found["pairs"]
    assert (pair["examples"], pair["only_first"], pair["only_second"], pair["note"]) == (60, 0, 14, "")
    assert {name: pair[name] for name in ("exact_p", "mid_p")} == mcnemar(0, 14)
    assert pair["difference"] == pytest.approx(14 / 60, abs=1e-6)


def test_on_the_terminal_and_as_a_page(runs, capsys):
    assert main(["compare", "one", "[red]two", "--out=both.html"]) == 0
    out = capsys.readouterr().out
    for part in ("[red]two", "66.67%", "90.00%", "settings that differ", "flip", "is better by 23.33 points",
                 "of the same 60 test examples 0 only the first"):
        assert part in " ".join(out.split()), part
    page = (runs / "both.html").read_text()
    assert "is better by 23.33 points" in page and "<script" not in page and page.count("<svg") == 2


def test_a_small_difference_may_be_chance(runs, capsys):
    write_run(runs / "three", predictions(np.arange(60) >= 18))
    assert main(["compare", "one", "three", "[red]two"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "one and three: a difference of 3.33 points may be chance" in out and out.count("McNemar") == 3


def change(path, **data):
    """Changes what a run's config.json says of its data."""
    config = json.loads(path.read_text())
    config["data"].update(data)
    path.write_text(json.dumps(config))


@pytest.mark.parametrize("what, note", [
    ("old", "two has no predictions"), ("damaged", "two has no predictions"), ("data", "their data differs"),
    ("classes", "their classes differ"), ("labels", "their examples have other labels")])
def test_runs_that_cannot_be_paired_are_compared_without(runs, capsys, what, note):
    other = runs / "[red]two"
    if what == "old":
        (other / "predictions.npz").unlink()
        result = json.loads((other / "result.json").read_text())
        del result["quality"], result["goodput"]
        (other / "result.json").write_text(json.dumps(result))
    elif what == "damaged":
        (other / "predictions.npz").write_bytes(b"PK")
    elif what == "data":
        change(other / "config.json", parts={"test": "11"})
    elif what == "classes":
        predictions(SECOND, classes=("a", "b", "c")).write(other / "predictions.npz")
    else:
        said = predictions(SECOND)
        said.labels[:] = 0
        said.write(other / "predictions.npz")
    found = compared(capsys, "one", "[red]two")
    assert "mid_p" not in found["pairs"][0] and note in found["pairs"][0]["note"]
    assert found["runs"][1]["accuracy"] == 0.9 and found["runs"][1]["accuracy_interval"][0] < 0.9


def test_examples_that_only_one_run_could_read_are_left_out_and_said(runs, capsys):
    said = predictions(SECOND)
    rest = {name: value[3:] for name, value in vars(said).items() if isinstance(value, np.ndarray)}
    type(said)(**{**vars(said), **rest}).write(runs / "[red]two/predictions.npz")
    (pair,) = compared(capsys, "one", "[red]two")["pairs"]
    assert pair["examples"] == 57 and pair["note"] == "3 examples that only one of them answered are left out"


def test_a_run_that_is_not_done_is_compared_by_its_last_evaluation(runs, capsys):
    (runs / "one/result.json").unlink()
    found = compared(capsys, "one", "[red]two")
    assert found["runs"][0]["accuracy"] == 40 / 60 and "isn't done" in found["runs"][0]["note"]


@pytest.mark.parametrize("words, code, said", [
    (["one"], 64, "needs two runs or more; received 1"), (["one", "one"], 64, "names something twice"),
    (["one", "nowhere"], 65, "is not a run directory"), (["one", "[red]two", "--out=nowhere/x.html"], 74, "nowhere")])
def test_wrong_usage(runs, capsys, words, code, said):
    assert main(["compare", *words]) == code
    err = capsys.readouterr().err
    assert said in err and "fix: " in err


def test_a_result_that_cannot_be_read_is_named(runs, capsys):
    (runs / "one/result.json").write_text("{")
    assert main(["compare", "one", "[red]two"]) == 65
    assert "result.json can't be read" in capsys.readouterr().err
