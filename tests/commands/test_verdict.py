"""What `bench` says of its figures."""

import pytest

from trainer.commands.common.verdict import reading_rate, verdict


@pytest.mark.parametrize("real, synthetic, reading, least, all_reduce, words", [
    (10.0, 5.0, 9.0, 1.0, None, "bound by input: a step waits for 50%"),
    (10.0, 5.0, 0.1, 1.0, None, "bound by compute: 80%"),  # reading takes next to nothing: a disturbed measurement
    (10.0, 10.0, 9.0, 1.0, 4.0, "bound by communication: the all-reduce alone takes 40%"),
    (10.0, 10.0, 9.0, 7.0, None, "bound by the host: a step of next to no examples takes 70%"),
    (10.0, 10.0, 9.0, 7.0, 1.0, "bound by the host"), (10.0, 9.9, 9.0, 0.5, 1.0, "bound by compute: 90%"),
    (9.0, 10.0, 9.0, 20.0, None, "bound by the host: a step of next to no examples takes 100%")])
def test_the_largest_cause_is_named_with_its_share(real, synthetic, reading, least, all_reduce, words):
    row = {"real_step_ms": [real], "synthetic_step_ms": [synthetic], "least_step_ms": [least],
           "input_alone_step_ms": [reading],
           **({"all_reduce_ms": [all_reduce]} if all_reduce else {})}
    assert verdict(row).startswith(words)


def test_reading_is_told_by_core_and_by_device():
    row = {"synthetic_step_ms": [10.0], "input_alone_step_ms": [40.0], "batch_size": 100, "replicas": 2, "cores": 8}
    assert reading_rate(row) == ("a core reads 312 images/s, so each device needs 16 cores beside its own work; 4 each "
                                 "are here")
