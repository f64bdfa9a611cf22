"""A network while it is trained: Adam (D. P. Kingma and J. Ba, arXiv:1412.6980) on random values.

The steps are counted, not the seconds, so that the same values and the same seed give the same bytes; gradients are
summed in a fixed order on any number of threads.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from stemcodecs.entropy.kernels.threads import run_all
from stemcodecs.learned.context_model import OUTPUTS
from stemcodecs.learned.integer_weights import FloatNetwork, float_network, pack
from stemcodecs.learned.training_ir import WIDTH
from stemcodecs.learned.training_kernels import loss_and_gradient

__all__ = ["Learner", "Samples"]

Array = np.ndarray[Any, Any]

BATCH, PARTS = 2048, 4
"""Values of a step, and the parts of them whose gradients are summed one after the other."""
RATE, LAST_RATE = 1.2e-2, 1e-5
FIRST_BY_LOGISTICS = 8
"""Where components are normal, an eighth of the steps are learned with logistic ones."""
MOST_NORMALISED = 8.0
"""Features are cut off at so many standard deviations while the network learns, lest one hot pixel teach it."""
_SAMPLE = 1 << 16
"""Values that sizes are estimated from."""
_LEAST_SPREAD = 4.0

Samples = Callable[[np.random.Generator, int], tuple[Array, Array, Array]]
"""Features of random values, float32[n, inputs], and between which numbers each of them lies, float32[n] twice."""


@dataclass(eq=False, kw_only=True)
class Learner:
    """A network while it is trained: one of those that compete.

    Attributes
    ----------
    samples : callable
        What to learn from.
    inputs, lanes, hidden : int
        Inputs of the first layer, those of them that are of lanes, and units of each hidden layer.
    seed : int
    normal : bool
        Whether the components of the mixture are normal distributions; else they are logistic ones.
    """

    samples: Samples
    inputs: int
    lanes: int
    hidden: int
    seed: int
    normal: bool

    def __post_init__(self) -> None:
        # Training takes whole vectors of units: those beyond are zeros, which no gradient reaches, and are cut off.
        self._units = -(-self.hidden // WIDTH) * WIDTH
        # Apart from the first weights, networks of one seed see the same counts.
        self.random = np.random.default_rng((self.seed, 1))
        self.sample = self.samples(self.random, _SAMPLE)
        features = self.sample[0]
        self.mean = features.mean(axis=0, dtype=np.float64)
        self.spread = np.maximum(features.std(axis=0, dtype=np.float64), _LEAST_SPREAD)
        self.weights = self._begin()
        self.first, self.second, self.count = np.zeros_like(self.weights), np.zeros_like(self.weights), 0

    def _begin(self) -> Array:
        layers, random = [], np.random.default_rng(self.seed)
        for n_out, n_in in ((self.hidden, self.inputs), (self.hidden, self.hidden), (OUTPUTS, self.hidden)):
            layers.append((random.uniform(-1, 1, (n_out, n_in)) / np.sqrt(n_in), np.zeros(n_out)))
        # Two logistics of different widths, about as wide as Poisson counts.
        layers[2][1][1:] = (-0.05, 0.05, -1.1, -0.4)
        return pack((layers[0], layers[1], layers[2]), self.inputs, self._units)

    def normalised(self, features: Array) -> Array:
        """Features as the network in training sees them."""
        out = (features - self.mean.astype(np.float32)) / self.spread.astype(np.float32)
        return np.clip(out, -MOST_NORMALISED, MOST_NORMALISED, out=out)

    def train(self, until: int, steps: int, done: Callable[[], None]) -> Array:
        """Steps of Adam until one of them, with a rate that falls as a cosine over all; bits a count of each step."""
        cuts = np.linspace(0, BATCH, PARTS + 1).astype(int).tolist()
        losses = []
        for k in range(self.count, until):
            # Far from its mean a normal component says nothing of where it should go, and a logistic one does.
            normal = self.normal and k * FIRST_BY_LOGISTICS >= steps
            features, low, up = self.samples(self.random, BATCH)
            x = self.normalised(features)

            def part(
                first: int, last: int, x: Array = x, low: Array = low, up: Array = up, normal: bool = normal
            ) -> tuple[Array, float]:
                gradient = np.zeros_like(self.weights)
                bits = loss_and_gradient(
                    self.weights, self.inputs, self._units, normal, x, low, up, first, last, gradient, True
                )
                return gradient, bits

            parts = run_all(part, list(itertools.pairwise(cuts)))
            gradient = np.sum([gradient for gradient, _ in parts], axis=0) / BATCH
            losses.append(sum(bits for _, bits in parts) / BATCH)
            self.count += 1
            rate = RATE * 0.5 * (1 + np.cos(np.pi * k / steps)) + LAST_RATE
            self.first += np.float32(0.1) * (gradient - self.first)
            self.second += np.float32(0.001) * (gradient * gradient - self.second)
            first = self.first / np.float32(1 - 0.9**self.count)
            second = self.second / np.float32(1 - 0.999**self.count)
            self.weights -= np.float32(rate) * first / (np.sqrt(second) + np.float32(1e-8))
            done()
        return np.array(losses)

    def network(self) -> FloatNetwork:
        """What was learned."""
        layers, n = float_network(self.weights, self.inputs, self._units, self.mean, self.spread), self.hidden
        (first, one), (second, two), (last, out) = layers
        return (first[:n], one[:n]), (second[:n, :n], two[:n]), (last[:, :n], out)

    def bits(self, network: FloatNetwork) -> float:
        """Bits a count of the sample, under a network that takes features as they are."""
        flat = pack(network, self.inputs, self._units)
        features, low, up = self.sample
        n = low.size
        total = loss_and_gradient(flat, self.inputs, self._units, self.normal, features, low, up, 0, n, flat, False)
        return float(total) / n
