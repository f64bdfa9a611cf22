"""What a network is trained by: gradients that are those of the loss, and components that fit counts."""

from __future__ import annotations

from math import lgamma

import numpy as np
import pytest

from stemcodecs.learned.learner import Learner
from stemcodecs.learned.training_kernels import NOTHING_BELOW, loss_and_gradient, weights_in


@pytest.mark.parametrize("normal", [False, True])
def test_gradients_are_those_of_the_loss(normal: bool) -> None:
    random = np.random.default_rng(3)
    inputs, hidden, n = 6, 16, 64
    weights = random.normal(0, 0.4, weights_in(inputs, hidden)).astype(np.float32)
    counts = random.poisson(2.0, n)
    up = (np.sqrt(counts + 0.875) - 1.4).astype(np.float32)
    low = np.where(counts > 0, np.sqrt(np.maximum(counts - 0.125, 0)) - 1.4, NOTHING_BELOW).astype(np.float32)
    x = random.normal(size=(n, inputs)).astype(np.float32)
    gradient = np.zeros_like(weights)
    loss_and_gradient(weights, inputs, hidden, normal, x, low, up, 0, n, gradient, True)

    def bits(values: np.ndarray) -> float:
        nothing = np.zeros_like(weights)
        return float(
            loss_and_gradient(values.astype(np.float32), inputs, hidden, normal, x, low, up, 0, n, nothing, False)
        )

    direction = gradient / np.linalg.norm(gradient)
    for along in (direction, np.where(random.random(weights.size) < 0.5, direction, -direction)):
        step = 2e-3
        slope = (bits(weights + step * along) - bits(weights - step * along)) / (2 * step)
        assert slope == pytest.approx(float(gradient @ along), rel=0.02, abs=0.02)


@pytest.mark.parametrize("mean", [1.5, 5.0])
def test_two_normals_say_what_poisson_counts_are(mean: float) -> None:
    """With the right outputs they take 0.02 % more than the entropy; two logistics take 0.06 to 0.09 % more."""
    counts = np.arange(int(mean + 10 * np.sqrt(mean)) + 8)
    probability = np.exp(counts * np.log(mean) - mean - [lgamma(k + 1) for k in counts])
    entropy = -(probability * np.log2(probability)).sum()
    up = (np.sqrt(counts + 0.875) - np.sqrt(mean + 0.375)).astype(np.float32)
    low = np.concatenate([[NOTHING_BELOW], up[:-1]]).astype(np.float32)
    inputs, hidden = 1, 16
    x = np.zeros((1, inputs), np.float32)
    # Only the biases of the last layer say something: a descent on them, count by count and by their probability.
    weights = np.zeros(weights_in(inputs, hidden), np.float32)
    outputs = weights[-8:]
    outputs[:5] = (0.0, -0.05, 0.05, -1.1, -0.4)
    first, second = np.zeros(5), np.zeros(5)
    best = np.inf
    for k in range(1, 1200):
        total, slope = 0.0, np.zeros(5)
        for i, p in enumerate(probability):
            if p > 1e-9:
                gradient = np.zeros_like(weights)
                total += p * loss_and_gradient(
                    weights, inputs, hidden, True, x, low[i : i + 1], up[i : i + 1], 0, 1, gradient, True
                )
                slope += p * gradient[-8:-3]
        best = min(best, total)
        first += 0.1 * (slope - first)
        second += 0.01 * (slope**2 - second)
        outputs[:5] -= 0.02 * (0.997**k) * (first / (1 - 0.9**k)) / (np.sqrt(second / (1 - 0.99**k)) + 1e-9)
    assert best < entropy * 1.0003


@pytest.mark.parametrize("hidden", [16, 28])
def test_units_beyond_those_of_a_network_stay_out_of_it(hidden: int) -> None:
    """Training takes sixteen units at a time, whatever the network has."""

    def samples(random: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        x = random.normal(0, 50, (n, 3)).astype(np.float32)
        at = (0.01 * x[:, 0] + random.normal(0, 0.3, n)).astype(np.float32)
        return x, at - np.float32(0.2), at + np.float32(0.2)

    learner = Learner(samples=samples, inputs=3, lanes=3, hidden=hidden, seed=0, normal=True)
    losses = learner.train(60, 60, lambda: None)
    assert losses[-10:].mean() < losses[:10].mean() - 0.2
    network = learner.network()
    assert [w.shape for w, _ in network] == [(hidden, 3), (hidden, hidden), (5, hidden)]
    np.testing.assert_allclose(learner.bits(network), losses[-10:].mean(), rtol=0.02)
