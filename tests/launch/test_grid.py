"""A sweep's file: which runs it means, and what is wrong with it."""

import math
from pathlib import Path

import pytest
from conftest import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st

from launch.sweep import grid
from trainer.config import Config
from trainer.errors import UsageError


def planned(text, gpus=None):
    runs, problems = grid.plan(text)
    runs, more = grid.check(runs, Path("out"), gpus)
    assert not problems + more
    return runs


def names(text):
    return [run.name for run in planned(text)]


def faults(text, gpus=None):
    runs, problems = grid.plan(text)
    return "\n".join(problems + grid.check(runs, Path("out"), gpus)[1])


def test_the_runs_are_the_product_of_all_values():
    runs = planned("# two by two\n--dataset=shapes\n--learning_rate=0.1 | 0.01\n\n--optimizer=sgd|adam\n")
    assert [run.name for run in runs] == [
        "learning_rate=0.1,optimizer=sgd", "learning_rate=0.1,optimizer=adam",
        "learning_rate=0.01,optimizer=sgd", "learning_rate=0.01,optimizer=adam"]
    assert runs[1].config == Config(dataset="shapes", learning_rate=0.1, optimizer="adam",
                                    model_dir="out/learning_rate=0.1,optimizer=adam")
    assert runs[1].words[-1] == "--model_dir=out/learning_rate=0.1,optimizer=adam"
    assert runs[1].varied == {"learning_rate": "0.1", "optimizer": "adam"}


def test_each_block_is_a_product_of_its_own():
    text = "--seed=0\n--ledger\n---\n--optimizer=sgd\n--momentum=0.5 | 0\n---\n--optimizer=adam\n--noledger"
    assert names(text) == ["ledger=true,optimizer=sgd,momentum=0.5", "ledger=true,optimizer=sgd,momentum=0",
                           "ledger=false,optimizer=adam"]
    assert [run.config.ledger for run in planned(text)] == [True, True, False]


def test_a_blocks_own_line_goes_before_a_common_one_and_a_flagfile(tmp_path):
    (tmp_path / "base.cfg").write_text("--epochs=7\n--batch_size=64\n")
    runs = planned(f"--flagfile={tmp_path}/base.cfg\n--seed=1|2\n---\n--seed=3\n--epochs=5\n---\n")
    assert [(run.name, run.config.epochs, run.config.seed, run.config.batch_size) for run in runs] == [
        ("run", 5, 3, 64)]


@pytest.mark.parametrize("text, name", [
    ("--augment= | flip,crop", "augment=flip+crop"), ("--data_dir=/my data/* | x", "data_dir=_my_data__"),
    ("--model=my.module:function|cnn3", "model=my.module_function"), ("--seed=1", "run")])
def test_names_are_readable_and_safe(text, name):
    assert name in names(text)


def test_names_that_would_be_alike_or_too_long_end_with_a_hash():
    first, second = names("--data_dir=/a/b | /a_b")
    assert first != second and first.startswith("data_dir=_a_b-") and len(first) == len(second)
    assert names("--data_dir=/a_b | /a/b") == [second, first]
    assert {len(name) for name in names(f"--data_dir={'x' * 300}1 | {'x' * 300}2")} == {160}


@pytest.mark.parametrize("text, said", [
    ("batch_size=3", "unexpected argument 'batch_size=3'"), ("--\n", "unexpected argument '--'"),
    ("--modle=cnn3", "did you mean --model?"),
    ("--epochs\n--seed=1", "--epochs has no value"), ("--help", "--help belongs on the command line"),
    ("--seed=1|1", "--seed has the value 1 2 times"), ("--seed=1\n--seed=2", "--seed stands 2 times in one block"),
    ("--learning_rate=0.1 | 1e-1", "the same run: learning_rate=0.1; learning_rate=1e-1"),
    ("---\n--seed=1\n---\n--seed=1", "the same run: run; run"), ("--data_dir=a\0b", "can't be printed"),
    ("--model_dir=runs/x", "--model_dir is named by the sweep"), ("--resume=never", "goes on from whatever it finds"),
    ("--strategy=multi_worker", "one process"), ("--flagfile=/not/there.cfg", "/not/there.cfg"),
    ("--batch_size=64|x|0", "whole number; received 'x' (in batch_size=x)")])
def test_what_is_wrong_with_a_file(text, said):
    assert said in faults(text)


def test_all_that_is_wrong_is_said_at_once_and_once():
    said = faults("--epochs=0 | 1\nfoo\n--optimizer=sdg\n--seed=1 | 2 | 3 | 4\n").splitlines()
    assert len(said) == 3 and "foo" in said[0]
    assert said[1].startswith("--optimizer must be sgd") and "(in" not in said[1]  # it is so in all runs
    assert said[2] == ("--epochs must be above 0; received 0.0 (in epochs=0,seed=1; epochs=0,seed=2; epochs=0,seed=3 "
                       "and 1 more)")


def test_a_flagfile_may_not_name_the_folder_either(tmp_path):
    (tmp_path / "base.cfg").write_text("--model_dir=elsewhere\n")
    assert "--model_dir is named by the sweep" in faults(f"--flagfile={tmp_path}/base.cfg")


def test_the_number_of_gpus_is_exact_unless_a_run_says_less():
    assert [run.config.num_gpus for run in planned("--seed=1|2", gpus=2)] == [2, 2]
    assert planned("--num_gpus=0", gpus=2)[0].config.num_gpus == 0
    assert "a run has 1 GPU here" in faults("--num_gpus=2", gpus=1)
    assert "a run has no GPUs here" in faults("--num_gpus=1", gpus=0)


def test_too_many_runs():
    with pytest.raises(UsageError, match="at most 1,000 runs; received 4,096"):
        grid.plan("\n".join(f"--flag{number}=1|2" for number in range(12)))


FLAGS = st.sampled_from(["seed", "learning_rate", "optimizer", "data_dir", "ledger", "augment", "model", "nothing", ""])
VALUES = st.lists(st.sampled_from(["1", "0.1", "1e-1", "sgd", "adam", "flip,crop", "", "/a b", "true", "🙂", "#", "-"])
                  | st.text(max_size=5), max_size=3)
LINES = st.one_of(st.builds(lambda flag, values: f"--{flag}={'|'.join(values)}", FLAGS, VALUES),
                  st.sampled_from(["---", "# words", "", "--ledger", "--noledger", "--seed"]), st.text(max_size=12))


@settings(max_examples=300, deadline=None)
@given(st.lists(LINES, max_size=6).map("\n".join))
def test_any_file_is_read_or_refused(text):
    runs, problems = grid.plan(text)
    checked, more = grid.check(runs, Path("out"))
    assert len(checked) == len(runs) or more
    if not problems + more:
        found = [run.name for run in checked]
        assert len({name.casefold() for name in found}) == len(found)
        assert all(set(name) <= set(".,=_+-") | set(filter(str.isalnum, map(chr, range(128)))) for name in found)
        assert all(len(name) <= 160 for name in found)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, 4), min_size=1, max_size=4), st.booleans())
def test_the_product_is_complete(sizes, spaced):
    flags = ("seed", "epochs", "patience", "max_steps")
    between = " | " if spaced else "|"
    text = "\n".join(f"--{flag}={between.join(map(str, range(1, size + 1)))}"
                     for flag, size in zip(flags, sizes, strict=False))
    runs = planned(text)
    assert len(runs) == math.prod(sizes)
    assert len({tuple(getattr(run.config, flag) for flag in flags) for run in runs}) == len(runs)


def test_a_file_that_cannot_be_read(tmp_path):
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "empty").write_text("# nothing\n---\n")
    for name, said in (("none", "No such file"), (".", "Is a directory"), ("binary", "it is not a text file"),
                       ("empty", "has no flags"), ("empty/none", "Not a directory")):
        with pytest.raises(UsageError, match=said):
            grid.read(tmp_path / name, tmp_path)


@pytest.mark.parametrize("path", sorted((ROOT / "configs/sweeps").iterdir()), ids=lambda path: path.stem)
def test_the_examples(path, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert len(grid.read(path, "out", 0)) > 1
