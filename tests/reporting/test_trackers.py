"""What trackers are told, and when; without any of their clients."""

import importlib
import json
import sys

import pytest

from trainer import flags
from trainer.config import TRACKERS, Config
from trainer.errors import UsageError
from trainer.reporting.jsonl import LinesFile
from trainer.reporting.trackers.lines import MetricsLines, result_of, settings_of
from trainer.reporting.trackers.script import Follower, _scrubbed
from trainer.reporting.trackers.trackers import require_installed


def train(step, **more):
    return {"time": step / 2, "step": step, "epoch": step / 10, "split": "train", "loss": 2.0, **more}


@pytest.fixture
def written(tmp_path):
    """(the path of a metrics.jsonl, a function that writes lines and returns the file's size)."""
    path = tmp_path / "metrics.jsonl"
    file = LinesFile(path, 0)

    def write(*lines):
        for line in lines:
            file.write(line)
        return file.flush()

    yield path, write
    file.close()


def test_a_step_is_one_point_of_all_its_lines(written):
    path, write = written
    lines = MetricsLines(path)
    lines.read(write(train(4), train(8, accuracy=0.5, loss=float("nan")),
                     {**train(8), "split": "eval", "loss": 1.5, "ids": [1], "good": True}))
    (first, second) = lines.take(after=-1, through=8)
    assert first.metrics == {"epoch": 0.4, "train/loss": 2.0} and first.time == 2.0
    assert second.metrics == {"epoch": 0.8, "train/accuracy": 0.5, "eval/loss": 1.5}


def test_only_what_is_covered_is_taken_and_only_once(written):
    path, write = written
    lines = MetricsLines(path)
    size = write(train(4), train(8))
    write(train(12))
    lines.read(size)
    assert [point.step for point in lines.take(-1, 7)] == [4]  # an evaluation of step 8 may still come
    lines.read(write({**train(8), "split": "eval"}))
    points = lines.take(4, 100)
    assert [point.step for point in points] == [8, 12] and "eval/loss" in points[0].metrics
    assert lines.take(-1, 100) == []
    lines.put_back(points)
    assert [point.step for point in lines.take(8, 100)] == [12]


class Shelf:
    """A tracker in memory, whose place may be closed.

    The interface's own smallest implementation, not a stand-in for another.
    """

    HINT = "open it"
    place, points, closed = "here", [], False

    def __init__(self, run):
        if Shelf.closed:
            raise ConnectionError("closed, see http://me:my-password@shelf/")
        self.id, self.run = run.tracker_id or "1", run

    connect = classmethod(lambda cls, run: cls(run))

    def last_step(self):
        return max((point.step for point in Shelf.points), default=-1)

    def log(self, points):
        Shelf.points = [*Shelf.points, *points]

    def result(self, numbers, words, step, files):
        Shelf.results = [*Shelf.results, numbers]

    def close(self, code):
        pass


@pytest.fixture
def follower(tmp_path, monkeypatch, capfd):
    """Makes a `Follower` of a tracker named shelf."""
    Shelf.points, Shelf.results, Shelf.closed = [], [], False
    monkeypatch.setitem(sys.modules, "trainer.reporting.trackers.clients.shelf", Shelf)
    (tmp_path / "config.json").write_text(json.dumps({"seed": 1, "given": {"seed": 1}}))
    return lambda continues: Follower("shelf", tmp_path, continues)


def steps():
    return [point.step for point in Shelf.points]


def test_what_the_tracker_has_is_not_told_again(follower, written):
    _, write = written
    size = write(*map(train, range(1, 5)))
    follower(False).covered(size, 2)
    follower(True).covered(size, 4)  # another start
    (_record(written)).write_text("nonsense")
    follower(True).covered(size, 4)  # the tracker itself knows
    assert steps() == [1, 2, 3, 4]


def _record(written):
    return written[0].parent / "trackers/shelf.json"


def test_a_new_run_in_the_folder_is_another_run_there(follower, written):
    _, write = written
    size = write(train(1))
    follower(False).covered(size, 1)
    assert json.loads(_record(written).read_text())["id"] == "1"
    assert follower(True)._id == "1" and follower(False)._id is None


def test_a_failure_is_told_once_and_made_up_for(follower, written, capfd):
    _, write = written
    size, Shelf.closed = write(train(1), train(2)), True
    mine = follower(False)
    for _ in range(3):
        with mine.attempt():
            mine.covered(size, 1)
    Shelf.closed = False
    with mine.attempt():
        mine.covered(size, 2)
    assert steps() == [1, 2]
    first, *others = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    assert first["warning"].startswith("--trackers=shelf fails: ConnectionError: closed, see http://…@shelf/; open it")
    assert "my-password" not in first["warning"]
    assert [list(answer) for answer in others] == [["said"], ["said"]]


def test_the_same_result_is_told_once(follower, tmp_path):
    result = {"step": 4, "eval_accuracy": 0.5, "wall_seconds": 3.0, "selected_on": "test", "best": {"step": 2},
              "exports": {"h5": {"accuracy": 0.5, "path": "x"}}, "quality": {}}
    for accuracy, seconds in ((0.5, 3.0), (0.5, 4.0), (0.6, 4.0)):
        now = {**result, "eval_accuracy": accuracy, "wall_seconds": seconds}
        (tmp_path / "result.json").write_text(json.dumps(now))
        follower(True).result()
    assert [numbers["eval_accuracy"] for numbers in Shelf.results] == [0.5, 0.6]
    assert Shelf.results[0]["exports/h5/accuracy"] == 0.5 and Shelf.results[0]["best/step"] == 2
    assert result_of(result)[1] == {"selected_on": "test"}


def test_settings_are_flat_and_have_no_secrets():
    config = Config(notify="https://hooks.example.com/services/the-secret", augment=("flip", "crop"), seed=7)
    given = json.loads(config.to_json())
    settings = settings_of({**given, "versions": {"keras": "3"}, "given": given})
    assert settings["augment"] == "flip,crop" and settings["seed"] == 7 and settings["versions/keras"] == "3"
    assert settings["notify"] == "https://hooks.example.com/…" and "max_steps" not in settings


def test_what_variables_hold_that_are_named_so_is_no_part_of_a_message(monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "abcdef123")
    assert _scrubbed("key abcdef123 at https://u:p@host/x") == "key … at https://…@host/x"


def test_an_unknown_tracker_is_named_with_those_that_there_are():
    with pytest.raises(UsageError, match="--trackers must be mlflow, trackio or wandb; received 'comet'"):
        flags.parse(Config, ["--trackers=comet"])


def test_a_client_that_is_not_installed_ends_the_run_before_it_begins(tmp_path, monkeypatch):
    (tmp_path / "comet_client").mkdir()  # a folder of runs is no package
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("comet_client", "neptune_client"):
        with pytest.raises(UsageError) as caught:
            require_installed(["json", name])
        assert caught.value.fix == f"pip install 'lockstep-trainer[{name}]'"
        assert str(caught.value).startswith(f"--trackers={name} needs the package")
    require_installed(["json"])


@pytest.mark.parametrize("name", TRACKERS)
def test_every_tracker_says_what_helps_and_has_its_extra(name):
    module = importlib.import_module(f"trainer.reporting.trackers.clients.{name}")  # imports no client
    assert module.HINT and callable(module.connect)
    import tomllib
    from conftest import ROOT
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert any(line.startswith(name) for line in project["optional-dependencies"][name])
