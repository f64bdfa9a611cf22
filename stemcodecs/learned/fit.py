"""Fit a network to counts: which features it gets, how large it is, and its weights, by what all of it takes.

Adam (D. P. Kingma and J. Ba, arXiv:1412.6980) on random counts. The steps are counted, not the seconds, so that the
same counts and the same seed give the same bytes; gradients are summed in a fixed order on any number of threads.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from stemcodecs.entropy.fit.grouped_counts import GroupedCounts
from stemcodecs.entropy.fit.static import fit_levels
from stemcodecs.entropy.kernels.threads import run_all
from stemcodecs.entropy.model.group_layout import GroupLayout
from stemcodecs.learned.context_model import OUTPUTS, ContextModel, may_be_seen, pixel_features, pixel_roots
from stemcodecs.learned.context_model_bytes import map_bytes, write_network
from stemcodecs.learned.integer_weights import FloatNetwork, float_network, integer_layers, pack
from stemcodecs.learned.pixel_maps import scatter_maps
from stemcodecs.learned.tables import tables
from stemcodecs.learned.training_kernels import TrainingData, features_of, loss_and_gradient
from stemcodecs.learned.unrolled_network import dose_roots

__all__ = ["NetworkFit", "NetworkOptions", "fit_network"]

Array = np.ndarray[Any, Any]

PATTERN = (
    (0, 0, -1), (0, -1, 0), (0, -1, -1), (0, -1, 1), (0, 0, -2), (0, -2, 0), (0, -2, -1), (0, -2, 1), (0, -1, -2),
    (0, -1, 2), (0, -2, -2), (0, -2, 2), (0, 0, -3),
)  # fmt: skip
"""The nearest counts of the same pattern: with the dose, seven pairs."""
SCAN = tuple((reference, dy, dx) for reference in (1, 2) for dy in (-1, 0, 1) for dx in (-1, 0, 1))
"""Counts around the pixel at the two nearest scan positions that are decoded before."""
STEPS = 8000
"""Steps of the fit: about fifteen seconds of one core."""
RACE = 4
"""With and without maps, networks compete for a quarter of the steps; the better one goes on."""
JUDGED = 4
"""The race is decided by the loss of its last quarter: both networks saw the same counts."""
PROMISE = 3
"""What maps save in the end is so many times what they save in the race: of the Siemens star 0.3 % then, and 1.2 %."""
BATCH, PARTS = 2048, 4
"""Counts of a step, and the parts of them whose gradients are summed one after the other."""
RATE, LAST_RATE = 1.2e-2, 1e-5
SMALL, LARGE = 16, 32
"""Hidden units."""
LARGE_FROM = 1_500_000
"""Counts from which on the large network pays: its 1,200 further weights take 2 kB, and it saves 0.01 bits a count."""
MOST_NORMALISED = 8.0
"""Features are cut off at so many standard deviations while the network learns, lest one hot pixel teach it."""
WEIGHT_BITS = tuple(range(8, 16))
_SAMPLE = 1 << 16
"""Counts that sizes are estimated from."""
_LEAST_SPREAD = 4.0


@dataclass(frozen=True, kw_only=True)
class NetworkOptions:
    """How long and from where a network is fitted.

    Attributes
    ----------
    steps : int
        Steps of the fit.
    seed : int
        Of its random numbers.
    progress : callable, optional
        Called with steps done and steps in all.
    """

    steps: int = STEPS
    seed: int = 0
    progress: Callable[[int, int], None] = lambda done, total: None


@dataclass(frozen=True, kw_only=True, eq=False)
class NetworkFit:
    """A fitted network, and what it is estimated to take.

    Attributes
    ----------
    model : ContextModel
    bits : float
        Of a count that is not constant, without the model.
    values : int
        Such counts.
    """

    model: ContextModel
    bits: float
    values: int


@dataclass(eq=False)
class _Learner:
    """A network while it is trained: one of those that compete."""

    data: TrainingData
    maps: tuple[Array, ...]
    hidden: int
    seed: int
    live: Array

    def __post_init__(self) -> None:
        # Apart from the first weights, networks of one seed see the same counts.
        self.random = np.random.default_rng((self.seed, 1))
        self.lanes = 1 + self.data.chained + len(self.data.neighbours)
        self.inputs = self.lanes + self.data.pixel.shape[1]
        self.sample = self.draw(_SAMPLE)
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
        return pack((layers[0], layers[1], layers[2]), self.inputs, self.hidden)

    def draw(self, n: int) -> tuple[Array, Array, Array]:
        """Features, base and count of ``n`` counts at random."""
        positions = self.random.integers(0, self.data.plane.shape[0], n)
        pixels = self.live[self.random.integers(0, self.live.size, n)]
        features, base = np.empty((n, self.inputs), np.float32), np.empty(n, np.float32)
        features_of(self.data, positions, pixels, features, base)
        return features, base, self.data.plane[positions, pixels].astype(np.uint16)

    def normalised(self, features: Array) -> Array:
        """Features as the network in training sees them."""
        out = (features - self.mean.astype(np.float32)) / self.spread.astype(np.float32)
        return np.clip(out, -MOST_NORMALISED, MOST_NORMALISED, out=out)

    def train(self, until: int, steps: int, done: Callable[[], None]) -> Array:
        """Steps of Adam until one of them, with a rate that falls as a cosine over all; bits a count of each step."""
        cuts = np.linspace(0, BATCH, PARTS + 1).astype(int).tolist()
        losses = []
        for k in range(self.count, until):
            features, base, counts = self.draw(BATCH)
            x = self.normalised(features)

            def part(
                first: int, last: int, x: Array = x, base: Array = base, counts: Array = counts
            ) -> tuple[Array, float]:
                gradient = np.zeros_like(self.weights)
                bits = loss_and_gradient(
                    self.weights, self.inputs, self.hidden, x, base, counts, first, last, gradient, True
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
        return float_network(self.weights, self.inputs, self.hidden, self.mean, self.spread)

    def bits(self, network: FloatNetwork) -> float:
        """Bits a count of the sample, under a network that takes features as they are."""
        flat = pack(network, self.inputs, self.hidden)
        features, base, counts = self.sample
        n = counts.size
        total = loss_and_gradient(flat, self.inputs, self.hidden, features, base, counts, 0, n, flat, False)
        return float(total) / n


def fit_network(
    counts: GroupedCounts, plane: Array, layout: GroupLayout, options: NetworkOptions, values: int | None = None
) -> NetworkFit | None:
    """Fit a network to counts.

    Parameters
    ----------
    counts : GroupedCounts
        Sums and doses of the plane.
    plane : uint8 or uint16[n_positions, n_pixels]
    layout : GroupLayout
        With a tile of more than one position, scan neighbours are features.
    options : NetworkOptions
    values : int, optional
        Counts that the network will code, if they are more than these.

    Returns
    -------
    NetworkFit
        None if all pixels are constant.
    """
    level_scale, levels, constants = fit_levels(counts.pixels, layout.detector)
    live = np.flatnonzero(levels >= 0)
    if live.size == 0:
        return None
    coded = live.size * layout.n_positions if values is None else values * live.size // layout.n_pixels
    roots = pixel_roots(levels, level_scale)
    wanted = PATTERN + (SCAN if layout.chain_length > 1 else ())
    neighbours = tuple(neighbour for neighbour in wanted if may_be_seen(neighbour, layout.detector))
    data = TrainingData(
        plane=plane,
        width=layout.detector[1],
        roots=np.where(levels < 0, -1, roots),
        dose=dose_roots(counts.doses).astype(np.int64),
        references=_references(layout),
        neighbours=np.array(neighbours, np.int64).reshape(-1, 3),
        chained=layout.chain_length > 1,
        pixel=pixel_features(roots, (), layout.detector).astype(np.float32),
        root6=tables().root6,
    )
    winner = _race(data, layout, roots, live, coded, options)
    model, bits = _in_integers(winner, level_scale, levels, constants, layout.detector, neighbours, coded)
    return NetworkFit(model=model, bits=bits, values=coded)


def _race(
    data: TrainingData, layout: GroupLayout, roots: Array, live: Array, values: int, options: NetworkOptions
) -> _Learner:
    """Train the network whose maps and size are estimated to take least."""
    race = max(options.steps // RACE, 1)
    hidden = LARGE if values >= LARGE_FROM else SMALL
    total, done = options.steps + race, 0

    def step() -> None:
        nonlocal done
        done += 1
        options.progress(done, total)

    def entrant(maps: tuple[Array, ...]) -> tuple[float, _Learner]:
        pixel = pixel_features(roots, maps, layout.detector).astype(np.float32)
        learner = _Learner(data._replace(pixel=pixel), maps, hidden, options.seed, live)
        bits = learner.train(race, options.steps, step)[-max(race // JUDGED, 1) :].mean()
        return float(bits) * values / 8, learner

    maps = scatter_maps(data)
    (without, plain), (with_maps, winner) = entrant(()), entrant(maps)
    if PROMISE * (without - with_maps) < sum(map(map_bytes, maps)):
        winner = plain
    winner.train(options.steps, options.steps, step)
    return winner


def _in_integers(
    learner: _Learner, level_scale: int, levels: Array, constants: Array, detector: tuple[int, int],
    neighbours: tuple[tuple[int, int, int], ...], values: int,
) -> tuple[ContextModel, float]:  # fmt: skip
    """The network with as many bits a weight as pay."""
    network = learner.network()
    found = []
    for bits in WEIGHT_BITS:
        made = integer_layers(network, learner.sample[0], learner.lanes, bits)
        if made is None:
            continue
        model = ContextModel(
            detector=detector, level_scale=level_scale, levels=levels, constants=constants, maps=learner.maps,
            neighbours=neighbours, layers=made[0],
        )  # fmt: skip
        each = learner.bits(made[1])
        found.append((each * values / 8 + len(write_network(model)), model, each))
    _, model, each = min(found, key=lambda one: one[0])
    return model, each


def _references(layout: GroupLayout) -> Array:
    """Position that each reference of a position leads to: int64[n_positions, 4], -1 where there is none."""
    out = np.full((layout.n_positions, 4), -1, np.int64)
    for step in range(1, layout.chain_length):
        here = layout.chains[:, step]
        held = here >= 0
        for k, back in enumerate(layout.references[step]):
            out[here[held], k] = layout.chains[:, step - back][held]
    return out
