"""Pipelines: the same batches on any number of replicas, after any seek."""

import re

import numpy as np
import pytest
from conftest import ROOT, make_runtime

from trainer.config import Config
from trainer.data import order
from trainer.data.pipeline import evaluation_iterators, open_feed
from trainer.plan import Job, make_plan


def global_batches(data, replicas, first_step=0, **settings):
    """What the replicas' iterators give, put together again: a list of (ids, images, labels) a step."""
    config = Config(batch_size=24, epochs=2.5, **settings)
    plan = make_plan(config, data.train.size, replicas)
    iterators = open_feed(Job(config, plan, make_runtime(replicas), data), first_step=first_step).iterators
    steps = zip(*iterators, strict=True)  # also fails if one replica has more steps than another
    return plan, [[np.concatenate([part.numpy() for part in parts]) for parts in list(zip(*batches, strict=True))[:4]]
                  for batches in steps]


@pytest.mark.parametrize("replicas", [1, 2, 4])
def test_every_replica_count_sees_the_same_batches(small, replicas):
    plan, steps = global_batches(small, replicas)
    assert len(steps) == plan.total_steps == 25
    ids, seeds = order.batches(order.Shuffle(0, 240), 24, 1, 0, 0, 25)
    for number, (got_ids, got_seeds, images, labels) in enumerate(steps):
        np.testing.assert_array_equal(got_ids, ids[number])
        np.testing.assert_array_equal(got_seeds, seeds[number])
        np.testing.assert_array_equal(images, small.train.images[ids[number]])
        np.testing.assert_array_equal(labels, small.train.labels[ids[number]])


def test_a_resumed_pipeline_goes_on_where_it_was(small):
    _, whole = global_batches(small, 2)
    _, late = global_batches(small, 2, first_step=13)
    np.testing.assert_array_equal([step[0] for step in late], [step[0] for step in whole[13:]])


def test_blocks_join_without_a_seam(small, monkeypatch):
    _, whole = global_batches(small, 2)
    monkeypatch.setattr("trainer.data.positions._BLOCK", 72)
    _, blocks = global_batches(small, 2)
    np.testing.assert_array_equal([step[0] for step in blocks], [step[0] for step in whole])


@pytest.mark.parametrize("replicas, rows", [(1, 50), (1, 7), (2, 8), (4, 13), (4, 50), (4, 12)])
def test_evaluation_weighs_every_example_once_pass_after_pass(small, replicas, rows):
    iterators, steps = evaluation_iterators(small.test, make_runtime(replicas), per_replica_batch_size=rows)
    for _ in range(2):
        seen = []
        for _ in range(steps):
            for batch in (next(iterator) for iterator in iterators):
                assert batch.images.shape == (rows, 32, 32, 3)
                seen += [image.tobytes() for image in batch.images.numpy()[batch.weights.numpy() == 1]]
        assert sorted(seen) == sorted(image.tobytes() for image in small.test.images)


def test_no_pipeline_is_tuned_by_tensorflow():
    """Its thread logs a warning where an iterator is dropped meanwhile: `with_threads` is where one is opened."""
    for path in (ROOT / "trainer").rglob("*.py"):
        text = path.read_text()
        for line in text.splitlines() if "tf.data" in text or "as_numpy_iterator" in text else ():
            opens = re.search(r"as_numpy_iterator\(\)|\biter\((?!\w+\.values|self\.)", line)
            assert not opens or "with_threads" in line or path.name == "pipeline.py", f"{path}: {line.strip()}"
