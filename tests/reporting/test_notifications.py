"""`--notify`: who is told how a run ended, that no secret is written, and that nothing waits for it."""

import json
import os
import signal
import socket
import sys
import time

import pytest
import runs
from hooks import Hook

from trainer.config import Config
from trainer.errors import DataError, Stopped, UsageError
from trainer.options import without_secrets
from trainer.reporting.notifications import channels
from trainer.reporting.notifications.notifier import Notifier

FLAGS = ("--dataset=small_data:few", "--model=small_models:regularized", "--batch_size=12", "--export=none")


@pytest.mark.parametrize("address, kept", [
    ("https://user:pw@hooks.slack.com:8443/services/T0/B0/key?x=1", "https://hooks.slack.com:8443/…"),
    ("https://host?key=1", "https://host/…"), ("slack://key/key/key/#channel", "slack://…"),
    ("mailto://me:pw@host", "mailto://…"), ("curl -H 'Authorization: key' https://x", "curl …"),
    ("./tell.sh", "./tell.sh"), ("KEY=1 ./tell.sh", "… …"), ("", "")])
def test_what_is_kept_of_an_address(address, kept):
    assert without_secrets(address) == without_secrets(kept) == kept
    config = Config(notify=address)
    assert json.loads(config.to_json())["notify"] == kept and "notify" not in repr(config)
    assert not config.differences(Config.from_mapping(json.loads(config.to_json())))


@pytest.mark.parametrize("address, cause", [
    ("http:///path-secret", "--notify=http:///… is no URL"),
    ("hooks.example.com/secret", "neither a URL nor a program"),
    ("echo 'secret", "--notify=echo … is no command"),
    ("secretless-program -k secret", "secretless-program … is neither")])
def test_an_address_that_cannot_be_told_is_refused_before_the_run(address, cause):
    with pytest.raises(UsageError) as caught:
        channels.require(address)
    assert cause in str(caught.value)


def test_without_apprise_its_services_are_refused_with_the_way_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "apprise", None)  # Python's own mark of what can't be imported
    with pytest.raises(UsageError) as caught:
        channels.require("ntfy://my-topic")
    assert str(caught.value).startswith("--notify=ntfy://… needs Apprise")
    assert caught.value.fix.startswith("pip install 'lockstep-trainer[notify]'")


def test_what_a_library_says_is_told_without_the_key():
    said, url = "404 of /services/T0123/B0\n  at hooks.example.com", "https://hooks.example.com/services/T0123/B0"
    assert channels.scrubbed(said, url) == "404 of /…/…/B0 at hooks.example.com"


@pytest.mark.slow
@pytest.mark.parametrize("error, event, code", [
    (None, "done", 0), (Stopped("asked to stop", "again"), "stopped", 75),
    (DataError("gone", "fetch it"), "failed", 65), (TypeError("a defect"), "failed", 1)])
def test_each_end_is_told_once(error, event, code):
    with Hook() as hook:
        try:
            with Notifier(Config(notify=f"http://127.0.0.1:{hook.port}/key"), True) as notifier:
                notifier.note_result({"test_accuracy": 0.5, "eval_accuracy": 0.4, "step": 7, "wall_seconds": 9.0,
                                      "ended_early": None})
                if error:
                    raise error
        except type(error or TypeError()):
            pass
    (body,) = hook.bodies
    assert body["event"] == event and body["code"] == code and body["content"] == body["text"]
    assert (str(error) in body["text"]) == isinstance(error, (Stopped, DataError))
    assert error or "test accuracy 50.00% after 7 steps" in body["text"]


@pytest.mark.slow
def test_a_refusal_is_a_warning_without_the_key(capfd):
    with Hook(404) as hook, Notifier(Config(notify=f"http://127.0.0.1:{hook.port}/the-key"), True):
        pass
    err = capfd.readouterr().err
    assert f"--notify=http://127.0.0.1:{hook.port}/…: the message was not delivered: the server answered 404" in err
    assert "the-key" not in err


@pytest.mark.slow
def test_a_server_that_never_answers_is_left_after_five_seconds(capfd):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        notifier = Notifier(Config(notify=f"http://127.0.0.1:{silent.getsockname()[1]}/"), True)
        began = time.monotonic()
        with notifier:
            pass
        assert 4 < time.monotonic() - began < 8 and "it goes on by itself" in capfd.readouterr().err


def test_a_run_without_the_flag_and_other_workers_start_no_process():
    for config, is_on in ((Config(), True), (Config(notify="http://127.0.0.1/"), False)):
        with Notifier(config, is_on):
            pass  # a test without the mark `slow` may start none


@pytest.mark.slow
def test_a_run_tells_and_writes_no_secret(tmp_path):
    with Hook() as hook:
        flag = f"--notify=http://me:the-password@127.0.0.1:{hook.port}/the-path?key=the-key"
        process = runs.start(tmp_path, *FLAGS, flag, "--max_steps=8", "--log_every_steps=2")
        out, err = runs.finish(process, 0)
        process = runs.start(tmp_path, *FLAGS, flag, "--max_steps=100000", "--epochs=1e5", "--log_every_steps=2")
        runs.wait_for_step(process, tmp_path, 20)
        process.send_signal(signal.SIGTERM)
        told = runs.finish(process, 75)
    assert [body["event"] for body in hook.bodies] == ["done", "stopped"]
    assert set(hook.users) == {"me:the-password"}
    result = json.loads((tmp_path / "run/result.json").read_text()) if (tmp_path / "run/result.json").exists() else {}
    assert hook.bodies[0]["step"] == 8 and not result  # it goes on
    written = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    assert any(b"http://127.0.0.1" in text for text in written.values())  # that it is told, and which host, is kept
    for text in (*written.values(), *(stream.encode() for stream in (out, err, *told))):
        assert not [secret for secret in (b"the-password", b"the-path", b"the-key") if secret in text]


@pytest.mark.slow
def test_a_run_that_is_killed_is_told_by_a_program(tmp_path):
    process = runs.start(tmp_path, *FLAGS, "--max_steps=100000", "--epochs=1e5", "--log_every_steps=2",
                         "--notify=tee told.txt")
    runs.wait_for_step(process, tmp_path, 2)
    process.kill()
    process.wait()
    deadline = time.monotonic() + 30
    while not (tmp_path / "told.txt").exists() or not (tmp_path / "told.txt").read_text().endswith("word\n"):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    title, text = (tmp_path / "told.txt").read_text().splitlines()
    assert title == "Lockstep: run died"
    assert text == f"run on {os.uname().nodename}: was killed, or ended at once, without a word"
