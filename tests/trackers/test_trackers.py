"""MLflow, Weights & Biases and Trackio themselves: what they have is what metrics.jsonl has, once."""

import json
import signal
import socket
import subprocess
import sys
import time

import pytest
from conftest import environment
from runs import finish, wait_for_step
from tracked import (
    FLAGS,
    Place,
    free_port,
    in_mlflow,
    in_wandb,
    rows_of_trackio,
    rows_of_wandb,
    start_server,
    stop_server,
)

from trainer.reporting import jsonl

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """The address of an MLflow server."""
    port = free_port()
    process = start_server(tmp_path_factory.mktemp("mlflow"), port)
    yield f"http://127.0.0.1:{port}"
    stop_server(process)


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path, {"WANDB_MODE": "offline", "WANDB_DIR": str(tmp_path),
                            "TRACKIO_DIR": str(tmp_path / "trackio")})


def by_step(rows):
    """Step to metrics; each may stand there once."""
    points = {}
    for step, name, value in rows:
        assert name not in points.setdefault(step, {}), (step, name)
        points[step][name] = value
    return points


def newest_checkpoint(folder):
    return max(int(path.parent.name[5:]) for path in (folder / "run/checkpoints").glob("step-*/manifest.json"))


def last_step(folder):
    return max(line["step"] for line in jsonl.read(folder / "run/metrics.jsonl"))


def kill_between_checkpoints(process, folder, step):
    """Kills a run once it has measured steps after its newest checkpoint; returns (that checkpoint, the last step)."""
    while True:
        wait_for_step(process, folder, step)
        process.send_signal(signal.SIGSTOP)
        time.sleep(0.1)
        saved, last = newest_checkpoint(folder), last_step(folder)
        if last > saved:
            process.kill()
            process.communicate()
            return saved, last
        step = last + 1
        process.send_signal(signal.SIGCONT)


def wait_for_status(server, place, status):
    deadline = time.monotonic() + 60
    while in_mlflow(server, place.record("mlflow")["id"])[1].info.status != status:
        assert time.monotonic() < deadline
        time.sleep(0.2)


def test_a_run_that_is_killed_goes_on_in_the_same_runs_and_has_each_step_once(place, server):
    flags = ("--trackers=mlflow,wandb,trackio", "--log_every_steps=2", "--checkpoint_every_steps=40", "--max_steps=400",
             "--seed=5")
    place.variables["MLFLOW_TRACKING_URI"] = server
    process = place.start(*flags)
    saved, last = kill_between_checkpoints(process, place.folder, 100)
    assert saved < last < 400
    wait_for_status(server, place, "KILLED")  # its trackers' processes live on, and see that it is gone
    before = {name: place.record(name)["id"] for name in ("mlflow", "wandb", "trackio")}
    assert all(place.record(name)["through"] <= saved for name in before)
    _, errors = place.run(*flags)
    assert "warning" not in errors
    assert before == {name: place.record(name)["id"] for name in before}

    expected = place.measured()
    assert len(expected) > 200 and "eval/loss" in expected[400] and "train/loss" in expected[400]
    result = json.loads((place.folder / "run/result.json").read_text())
    rows, found = in_mlflow(server, before["mlflow"])
    logged = [row for row in rows if not row[1].startswith("result/")]
    assert by_step(logged) == expected
    assert found.info.status == "FINISHED" and found.info.run_name == "run"
    assert found.data.params["seed"] == "5" and found.data.params["versions/keras"]
    assert found.data.metrics["result/eval_accuracy"] == result["eval_accuracy"]
    assert {file.path for file in artifacts(server, before["mlflow"])} == {"report/report.html", "report/curves.png"}

    assert by_step(rows_of_wandb(place.folder)) == expected
    starts = {path for path, _ in in_wandb(place.folder, "history")}
    assert len(starts) == 2 and {path.parent.name.split("-")[-1] for path in starts} == {before["wandb"]}
    summary = {item.key: item.value_json for _, part in in_wandb(place.folder, "summary") for item in part.update}
    assert json.loads(summary["result/eval_accuracy"]) == result["eval_accuracy"]

    rows = rows_of_trackio(place.folder, before["trackio"])
    assert by_step(row for row in rows if not row[1].startswith("result/")) == expected
    assert (400, "result/eval_accuracy", result["eval_accuracy"]) in rows


def artifacts(server, run_id):
    import mlflow

    return mlflow.MlflowClient(server).list_artifacts(run_id, "report")


def test_a_server_that_is_gone_stops_nothing_and_gets_all_of_it_later(place):
    port = free_port()
    place.variables |= {"MLFLOW_TRACKING_URI": f"http://user:the-password@127.0.0.1:{port}", "WANDB_MODE": "online",
                        "WANDB_API_KEY": "0123456789abcdef0123456789abcdef01234567",
                        "WANDB_BASE_URL": f"http://127.0.0.1:{port}", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
                        "WANDB_INIT_TIMEOUT": "5"}
    flags = ("--trackers=mlflow,wandb", "--max_steps=40", "--log_every_steps=4", "--checkpoint_every_steps=10")
    out, errors = place.run(*flags)
    assert out.count("steps; best") == 1  # the summary: the run is whole
    for name, hint in (("mlflow", "MLFLOW_TRACKING_URI"), ("wandb", "WANDB_MODE=offline")):
        warnings = [line for line in errors.splitlines() if f"--trackers={name} fails" in line]
        assert len(warnings) == 1 and hint in warnings[0], errors
    written = [path.read_bytes() for path in (place.folder / "run").rglob("*") if path.is_file()]
    assert not [text for text in (*written, out.encode(), errors.encode()) if b"the-password" in text]

    process = start_server(place.folder, port)
    try:
        place.run(*flags[1:], "--trackers=mlflow")  # the run has ended: what was missing is told, nothing is trained
        rows, found = in_mlflow(f"http://127.0.0.1:{port}", place.record("mlflow")["id"])
        assert by_step(row for row in rows if not row[1].startswith("result/")) == place.measured()
        place.run(*flags[1:], "--trackers=mlflow")
        again, found = in_mlflow(f"http://127.0.0.1:{port}", place.record("mlflow")["id"])
        assert sorted(again) == sorted(rows) and found.info.status == "FINISHED"
    finally:
        stop_server(process)


def test_a_server_that_never_answers_delays_neither_the_training_nor_a_stop(place):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        place.variables["MLFLOW_TRACKING_URI"] = f"http://127.0.0.1:{silent.getsockname()[1]}"
        process = place.start("--trackers=mlflow", "--max_steps=100000", "--log_every_steps=4")
        wait_for_step(process, place.folder, 100)
        began = time.monotonic()
        process.terminate()
        _, errors = finish(process, 75)
        assert time.monotonic() - began < 20 and "--trackers=mlflow has not taken everything within 5 s" in errors


def test_of_two_workers_the_chief_alone_tracks_and_tells(place):
    done = subprocess.run(
        [sys.executable, "-m", "launch.local", "--num_workers=2", "--", *FLAGS,
         "--model_dir=run", "--trackers=trackio", "--max_steps=20", "--log_every_steps=4", "--num_gpus=0",
         "--notify=json://127.0.0.1:1/the-secret"],
        cwd=place.folder, env=environment(**place.variables), text=True, capture_output=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert by_step(row for row in rows_of_trackio(place.folder, place.record("trackio")["id"])
                   if not row[1].startswith("result/")) == place.measured()
    text = done.stdout + done.stderr
    assert text.count("--notify=json://…: the message was not delivered: Apprise could not deliver it") == 1
    assert "the-secret" not in text


@pytest.mark.parametrize("url, known", [("json://localhost/x", True), ("ntfy://topic", True), ("nowhere://x", False)])
def test_apprise_says_which_urls_it_knows(url, known):
    from trainer.errors import UsageError
    from trainer.reporting.notifications import channels

    if known:
        return channels.require(url)
    with pytest.raises(UsageError, match="no URL that Apprise knows"):
        channels.require(url)


def test_apprise_delivers(tmp_path):
    from hooks import Hook

    from trainer.reporting.notifications import channels

    with Hook() as hook:
        channels.deliver(f"json://127.0.0.1:{hook.port}/x", {"event": "done", "title": "a title", "text": "a text"})
    (message,) = hook.bodies
    assert message["title"] == "a title" and message["message"] == "a text" and message["type"] == "success"


