"""Which files `predict` answers for, and how it prints what it knows: without a model."""

import csv
import io
import itertools
import json
import os

import numpy as np
import pytest
from image_files import class_folders

from trainer import flags
from trainer.commands import predict
from trainer.commands.prediction import forms
from trainer.commands.prediction.answers import Answer
from trainer.commands.prediction.image_names import batches
from trainer.errors import UsageError

CLASSES = ("café", "[bold]red", "x" * 30)
ODD = "a\udcff\x1b[31m\n[b].png"


def found(*words, stdin=b""):
    return [(item.name, item.problem) for batch in batches(words, io.BytesIO(stdin)) for item in batch]


def test_folders_are_walked_and_only_what_ends_as_images_do_is_opened(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    class_folders("d", 4, classes=("b", "a"))
    for name in ("d/README.txt", "d/.DS_Store", "d/a/.hidden", "d/b/Thumbs.db"):
        (tmp_path / name).write_text("no image")
    (tmp_path / "d/a/000.png").symlink_to("nowhere")
    (tmp_path / "d/z").symlink_to("..")
    (tmp_path / "empty").mkdir()
    os.mkfifo("pipe.png")
    assert found("d", "d/README.txt", "none.png", "empty", "pipe.png", "d/a") == [
        ("d/a/000.png", "it is a link to nothing"), ("d/a/00001.png", None), ("d/a/00003.png", None),
        ("d/b/00000.png", None), ("d/b/00002.png", None), ("d/z/d", "it is a link in a circle"),
        ("d/z/pipe.png", "it is not a regular file"), ("d/README.txt", None),
        ("none.png", "it can't be read: No such file or directory"),
        ("empty", "no file in this folder ends as image files do"), ("pipe.png", "it is not a regular file"),
        ("d/a/000.png", "it is a link to nothing"), ("d/a/00001.png", None), ("d/a/00003.png", None)]


def test_names_from_standard_input(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    paths = [str(path) for path in class_folders("d", 2, classes=("a",))]
    assert found("-", stdin="\n".join(["d/a", "", "é.png", "a\0b"]).encode() + b"\r\n\xff") == [
        *((path, None) for path in paths), ("é.png", "it can't be read: No such file or directory"),
        ("a\0b", "it can't be read: embedded null byte"), ("\udcff", "it can't be read: No such file or directory")]
    assert found("-") == [("-", "standard input names no file")]


def test_thousands_of_names_come_in_lists_that_grow_but_not_without_end():
    stdin = b"".join(b"%d.png\n" % number for number in range(20_000))
    lists = list(batches(["-"], io.BytesIO(stdin)))
    assert [item.name for item in itertools.chain(*lists)] == [f"{number}.png" for number in range(20_000)]
    assert len(lists[0]) <= 64 and max(map(len, lists)) <= 4096
    lists = list(batches([f"{number}" for number in range(6000)], None))
    assert [len(batch) for batch in lists] == [64, 256, 1024, 4096, 560]


def test_a_name_is_answered_before_the_next_one_is_written():
    reader, writer = os.pipe()
    os.write(writer, b"first.png\n")
    with open(reader, "rb", buffering=0) as stdin:
        lists = batches(["-"], stdin)
        assert [item.name for item in next(lists)] == ["first.png"]
        os.write(writer, b"second.png\n")
        assert [item.name for item in next(lists)] == ["second.png"]
        os.close(writer)
        assert list(lists) == []


def test_a_standard_input_that_cannot_be_read_is_an_error(tmp_path):
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "wb") as stdin, pytest.raises(OSError):  # as `predict - <&1`
        list(batches(["-"], stdin))


def answers():
    return [Answer("a b.png", np.array([0.2, 0.7, 0.1], np.float32)), Answer(ODD, None, "it is\nbad")]


@pytest.mark.parametrize("top_k, seen", [(None, {"class", "probability"}), (2, {"class_2", "probability_2"}),
                                         (9, {"class_3", "probability_3"})])
def test_comma_separated_values(top_k, seen):
    form = forms.Csv(CLASSES, top_k)
    lines = [form.heading, *map(form.line, answers())]
    first, second = csv.DictReader(lines)
    assert seen <= first.keys() and "class_4" not in first
    assert (first["file"], first["class"], first["probability"], first["error"]) == (
        "a b.png", "[bold]red", "0.700000", "")
    assert first.get("class_2") in (None, "café")
    assert (second["file"], second["class"], second["error"]) == (
        r"a\udcff\x1b[31m\n[b].png", "", r"it is\nbad")


@pytest.mark.parametrize("top_k, names", [(None, list(CLASSES)), (1, ["[bold]red"]),
                                          (3, ["[bold]red", "café", "x" * 30])])
def test_json_reads_back_every_name(top_k, names):
    form = forms.Json(CLASSES, top_k)
    first, second = map(json.loads, map(form.line, answers()))
    assert form.heading is None and list(first["probabilities"]) == names
    assert (first["class"], first["probability"]) == ("[bold]red", pytest.approx(0.7))
    assert second == {"file": ODD, "error": "it is\nbad"}
    assert all(form.line(answer).isascii() for answer in answers())


@pytest.mark.parametrize("top_k", [None, 1, 3])
def test_the_tables_columns_are_aligned_and_its_names_are_text(top_k):
    form = forms.Table(CLASSES, top_k)
    lines = [form.heading, *map(form.line, answers())]
    columns = {line.index(word) for line, word in zip(lines, ("file", "a b.png", "a\\udcff"), strict=True)}
    assert len(columns) == 1 and all(line.isprintable() for line in lines)
    assert lines[1].startswith("[bold]red ") and "70.0%" in lines[1]
    assert lines[2].endswith(r"a\udcff\x1b[31m\n[b].png: it is\nbad")
    assert ("café 20.0%" in lines[1]) == (top_k != 1)


def parsed(*words):
    return flags.parse(predict.Options, ["--model_dir=run", *words], positional="files")


def test_what_stands_after_two_dashes_is_a_file():
    files = parsed("a.png", "--json", "-", "--", "-b.png", "--csv", "--").files
    assert files == ("a.png", "-", "-b.png", "--csv", "--")
    assert parsed("a.png", "a.png").files == ("a.png", "a.png")
    assert parsed("--", "--help").files == ("--help",)


@pytest.mark.parametrize("words, part", [((), "at least one image file or folder"), (("-", "-"), "given twice"),
                                         (("a", "--top_k=0"), "--top_k must be at least 1"),
                                         (("a", "-b.png"), "no flag --b.png"), (("a", "--csv", "--json"), "exclude")])
def test_wrong_usage(words, part):
    with pytest.raises(UsageError, match=part):
        parsed(*words)
