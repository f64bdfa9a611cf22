"""Fit a network to counts: which features it gets, how large it is, and its weights, by what all of it takes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from stemcodecs.entropy.fit.grouped_counts import GroupedCounts
from stemcodecs.entropy.fit.static import fit_levels
from stemcodecs.entropy.model.group_layout import MAX_REFERENCES, GroupLayout
from stemcodecs.learned.context_model import ContextModel, may_be_seen, pixel_features, pixel_roots
from stemcodecs.learned.context_model_bytes import map_bytes, write_network
from stemcodecs.learned.dose import dose_roots
from stemcodecs.learned.integer_weights import integer_layers
from stemcodecs.learned.learner import Learner
from stemcodecs.learned.pixel_maps import scatter_maps
from stemcodecs.learned.scan_means import means_of
from stemcodecs.learned.tables import tables
from stemcodecs.learned.training_kernels import TrainingData, features_of

__all__ = ["NetworkFit", "NetworkOptions", "chains_pay", "fit_network", "hidden_for", "references_of"]

Array = np.ndarray[Any, Any]

PATTERN = (
    (0, 0, -1), (0, -1, 0), (0, -1, -1), (0, -1, 1), (0, 0, -2), (0, -2, 0), (0, -2, -1), (0, -2, 1), (0, -1, -2),
    (0, -1, 2), (0, -2, -2), (0, -2, 2), (0, 0, -3),
)  # fmt: skip
"""The nearest counts of the same pattern: with the dose, seven pairs."""
FARTHER = ((0, -3, 0), (0, -3, 1), (0, -3, -1), (0, -1, 3), (0, -1, -3), (0, 0, -4), (0, -4, 0), (0, -2, 3))
BRIGHT = 100.0
"""Mean count from which on those a little farther away are looked at too: of bright patterns they save 0.2 %, of others
nothing that is worth their time."""
MEANS = ((48, 18), (16, 18), (3, 25))
"""Decay and reach of the means of scan neighbours: nearly the nearest alone, a middle way, nearly all alike."""
SCAN = tuple((5 + mean, dy, dx) for mean in range(len(MEANS)) for dy in (-1, 0, 1) for dx in (-1, 0, 1))
"""What the means say around the pixel. The four nearest positions by themselves say less: of simulated grains they need
0.6 % more."""
STEPS = 8000
"""Steps of the fit: about fifteen seconds of one core."""
RACE = 4
"""With and without maps, networks compete for a quarter of the steps; the better one goes on."""
JUDGED = 4
"""The race is decided by the loss of its last quarter: both networks saw the same counts."""
PROMISE = 3
"""What maps save in the end is so many times what they save in the race: of the Siemens star 0.3 % then, and 1.2 %."""
TRIAL = 16
"""Whether scan neighbours pay is found out in a sixteenth of the steps, without and with them."""
SCAN_GAIN = 0.004
"""Share of the bits that they must save then: with them, reading a pattern decodes some others."""
SMALL = 16
HIDDEN = ((4_000_000, 32), (1_500_000, 28), (0, SMALL))
"""Counts from which on so many hidden units pay. From 16 to 32, 1,200 further weights take 2 kB and save 0.01 bits a
count; of two million counts, 28 units save as much, and code an eighth faster."""
WEIGHT_BITS = tuple(range(8, 16))
_MOST_OF_MEANS = 1 << 23
"""Values whose means of scan neighbours are kept to learn from: two bytes a mean each."""


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


_Entrant = tuple[Learner, tuple[Array, ...]]
"""A network in the race, and its maps."""


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
    data, neighbours = _training_data(plane, counts, layout, levels, roots, options.seed)
    winner = _race(data, layout, roots, live, coded, options)
    model, bits = _in_integers(winner, level_scale, levels, constants, layout.detector, neighbours, coded)
    return NetworkFit(model=model, bits=bits, values=coded)


def _race(
    data: TrainingData, layout: GroupLayout, roots: Array, live: Array, values: int, options: NetworkOptions
) -> _Entrant:
    """Train the network whose maps and size are estimated to take least."""
    race = max(options.steps // RACE, 1)
    hidden = hidden_for(values)
    total, done = options.steps + race, 0

    def step() -> None:
        nonlocal done
        done += 1
        options.progress(done, total)

    def entrant(maps: tuple[Array, ...]) -> tuple[float, _Entrant]:
        learner = _learner(data, maps, layout.detector, roots, live, hidden, options.seed)
        bits = learner.train(race, options.steps, step)[-max(race // JUDGED, 1) :].mean()
        return float(bits) * values / 8, (learner, maps)

    maps = scatter_maps(data)
    (without, plain), (with_maps, winner) = entrant(()), entrant(maps)
    if PROMISE * (without - with_maps) < sum(map(map_bytes, maps)):
        winner = plain
    winner[0].train(options.steps, options.steps, step)
    return winner


def hidden_for(values: int) -> int:
    """Hidden units of a network for so many counts."""
    return next(hidden for least, hidden in HIDDEN if values >= least)


def _learner(
    data: TrainingData, maps: tuple[Array, ...], detector: tuple[int, int], roots: Array, live: Array, hidden: int,
    seed: int,
) -> Learner:  # fmt: skip
    of_maps = data._replace(pixel=pixel_features(roots, maps, detector).astype(np.float32))
    lanes = 1 + data.chained + len(data.neighbours)
    inputs = lanes + of_maps.pixel.shape[1]

    def samples(random: np.random.Generator, n: int) -> tuple[Array, Array, Array]:
        positions = random.integers(0, data.chosen.size, n)
        pixels = live[random.integers(0, live.size, n)]
        features, low, up = np.empty((n, inputs), np.float32), np.empty(n, np.float32), np.empty(n, np.float32)
        features_of(of_maps, positions, pixels, features, low, up)
        return features, low, up

    return Learner(samples=samples, inputs=inputs, lanes=lanes, hidden=hidden, seed=seed, normal=True)


def chains_pay(counts: GroupedCounts, plane: Array, chained: GroupLayout, options: NetworkOptions) -> bool:
    """Whether scan neighbours save a network bits, after a short fit without and with them.

    Parameters
    ----------
    counts : GroupedCounts
        Of single positions.
    plane : uint8 or uint16[n_positions, n_pixels]
    chained : GroupLayout
        Of chains of the same positions.
    options : NetworkOptions
    """
    level_scale, levels, _ = fit_levels(counts.pixels, chained.detector)
    live = np.flatnonzero(levels >= 0)
    if live.size == 0:
        return False
    roots, steps = pixel_roots(levels, level_scale), max(options.steps // TRIAL, 1)
    bits = []
    for layout in (counts.layout, chained):
        data, _ = _training_data(plane, counts, layout, levels, roots, options.seed)
        learner = _learner(data, (), layout.detector, roots, live, SMALL, options.seed)
        bits.append(learner.train(steps, steps, lambda: None)[-max(steps // JUDGED, 1) :].mean())
    return bool(bits[1] < bits[0] * (1 - SCAN_GAIN))


def _training_data(
    plane: Array, counts: GroupedCounts, layout: GroupLayout, levels: Array, roots: Array, seed: int
) -> tuple[TrainingData, tuple[tuple[int, int, int], ...]]:  # fmt: skip
    """What a network of a layout learns from, and its neighbours."""
    chained = layout.chain_length > 1
    bright = ((roots[levels >= 0] / 1024.0) ** 2).mean() > BRIGHT
    wanted = PATTERN + (FARTHER if bright else ()) + (SCAN if chained else ())
    neighbours = tuple(neighbour for neighbour in wanted if may_be_seen(neighbour, layout.detector, len(MEANS)))
    roots, dose = np.where(levels < 0, -1, roots), dose_roots(counts.doses).astype(np.int64)
    chosen = np.arange(layout.n_positions)
    means = np.zeros((1, 0, 0), np.int16)
    if chained:
        most = max(_MOST_OF_MEANS // layout.n_pixels, 1)
        if chosen.size > most:
            # At random: regular positions could all have the same place in their tiles.
            chosen = np.sort(np.random.default_rng((seed, 2)).choice(chosen.size, most, replace=False, shuffle=False))
        means = means_of(plane, layout, roots, dose, chosen, MEANS)
    data = TrainingData(
        plane=plane,
        width=layout.detector[1],
        roots=roots,
        dose=dose,
        references=references_of(layout),
        chosen=chosen,
        means=means,
        neighbours=np.array(neighbours, np.int64).reshape(-1, 3),
        chained=chained,
        pixel=pixel_features(np.maximum(roots, 0), (), layout.detector).astype(np.float32),
        root6=tables().root6,
    )
    return data, neighbours


def _in_integers(
    entrant: _Entrant, level_scale: int, levels: Array, constants: Array, detector: tuple[int, int],
    neighbours: tuple[tuple[int, int, int], ...], values: int,
) -> tuple[ContextModel, float]:  # fmt: skip
    """The network with as many bits a weight as pay."""
    learner, maps = entrant
    network = learner.network()
    found = []
    for bits in WEIGHT_BITS:
        made = integer_layers(network, learner.sample[0], learner.lanes, bits)
        if made is None:
            continue
        model = ContextModel(
            detector=detector, level_scale=level_scale, levels=levels, constants=constants, maps=maps,
            neighbours=neighbours, layers=made[0], normal=learner.normal,
            means=MEANS if any(reference > MAX_REFERENCES for reference, _, _ in neighbours) else (),
        )  # fmt: skip
        each = learner.bits(made[1])
        found.append((each * values / 8 + len(write_network(model)), model, each))
    _, model, each = min(found, key=lambda one: one[0])
    return model, each


def references_of(layout: GroupLayout) -> Array:
    """Position that each reference of a position leads to: int64[n_positions, 4], -1 where there is none."""
    out = np.full((layout.n_positions, 4), -1, np.int64)
    for step in range(1, layout.chain_length):
        here = layout.chains[:, step]
        held = here >= 0
        for k, back in enumerate(layout.references[step]):
            out[here[held], k] = layout.chains[:, step - back][held]
    return out
