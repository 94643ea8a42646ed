"""--profile_steps: whole calls of the device loop, and never the end of a run."""

import contextlib
import types

import pytest

from trainer.process.tf_import import tf
from trainer.reporting.board.profile import StepProfile


@pytest.fixture
def profiler(monkeypatch):
    """What is asked of TensorFlow's profiler, in order."""
    asked = []
    monkeypatch.setattr(tf.profiler.experimental, "start", lambda folder: asked.append(("start", folder)))
    monkeypatch.setattr(tf.profiler.experimental, "stop", lambda save=True: asked.append(("stop", save)))
    return asked


def console():
    said = []
    return types.SimpleNamespace(say=said.append, warn=said.append, said=said)


def steps_of(profile, step, end, most):
    """Goes from step to end in calls of up to so many steps; returns where they end."""
    ends = []
    while step < end:
        count = profile.limit(step, min(most, end - step))
        with profile.around(step, count):
            step += count
        ends.append(step)
    return ends


@pytest.mark.parametrize("most, ends", [(100, [9, 14, 30]), (4, [4, 8, 9, 13, 14, 18, 22, 26, 30])])
def test_calls_end_before_the_first_profiled_step_and_with_the_last(profiler, tmp_path, most, ends):
    assert steps_of(StepProfile((10, 14), tmp_path, console()), 0, 30, most) == ends
    assert profiler == [("start", str(tmp_path)), ("stop", True)]


@pytest.mark.parametrize("begin, calls", [(12, 2), (14, 0), (25, 0)])
def test_a_run_that_goes_on_profiles_what_is_left(profiler, tmp_path, begin, calls):
    steps_of(StepProfile((10, 14), tmp_path, console()), begin, 30, 100)
    assert len(profiler) == calls


def test_other_workers_end_their_calls_at_the_same_steps_and_profile_nothing(profiler):
    assert steps_of(StepProfile((10, 14), None, console()), 0, 30, 100) == [9, 14, 30]
    assert steps_of(StepProfile(None, None, console()), 0, 30, 100) == [30]
    assert profiler == []


def test_a_profile_that_is_under_way_is_dropped_where_the_run_stops(profiler, tmp_path):
    profile = StepProfile((10, 14), tmp_path, console())
    steps_of(profile, 0, 12, 100)
    profile.close()
    profile.close()
    assert profiler == [("start", str(tmp_path)), ("stop", False)]


@pytest.mark.parametrize("fails", ["start", "stop"])
def test_a_profiler_that_fails_is_a_warning(profiler, tmp_path, monkeypatch, fails):
    def fail(*_, **__):
        raise RuntimeError("no profiler here")

    monkeypatch.setattr(tf.profiler.experimental, fails, fail)
    told = console()
    profile = StepProfile((10, 14), tmp_path, told)
    assert steps_of(profile, 0, 30, 100)[-1] == 30
    profile.close()
    assert told.said == ["--profile_steps: there is no profile (RuntimeError: no profiler here)"]


def test_an_error_of_the_training_goes_through(profiler, tmp_path):
    profile = StepProfile((10, 14), tmp_path, console())
    with contextlib.suppress(ZeroDivisionError), profile.around(9, 5):
        raise ZeroDivisionError
    profile.close()
    assert profiler[-1] == ("stop", False)
