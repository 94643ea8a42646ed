"""Evaluation: every example once, whatever the batch and the replicas."""

import numpy as np
import pytest

from trainer.train.evaluation import Evaluator


@pytest.mark.slow
@pytest.mark.parametrize("replicas, rows", [(1, 50), (1, 7), (2, 8), (4, 13), (4, 3)])
def test_every_example_counts_once(trainable, small, replicas, rows):
    made = trainable(replicas)
    made.train(20)
    evaluator = Evaluator(made.state.model, small.test, made.runtime, per_replica_batch_size=rows)
    logits = made.state.model(small.test.images.astype(np.float32), training=False).numpy()
    log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    for _ in range(2):
        result = evaluator.run()
        assert result.examples == 50
        assert result.accuracy == np.mean(logits.argmax(1) == small.test.labels)
        assert result.loss == pytest.approx(-log_p[np.arange(50), small.test.labels].mean(), rel=1e-5)


def test_it_sees_later_weights_without_compiling_again(trainable, small):
    made = trainable(2)
    evaluator = Evaluator(made.state.model, small.test, made.runtime, per_replica_batch_size=10)
    before = evaluator.run()
    made.train(30)
    assert evaluator.run().loss != before.loss
    assert evaluator._function.experimental_get_tracing_count() == 1
