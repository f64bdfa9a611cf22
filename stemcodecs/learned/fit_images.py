"""Fit a network to images: whether it looks at the images before, and its weights, by what all of it takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from stemcodecs.entropy.fit.grouped_counts import GroupedCounts
from stemcodecs.entropy.fit.tile import FEWEST_TILES
from stemcodecs.entropy.model.group_layout import GroupLayout
from stemcodecs.learned.context_model import lane_features, may_be_seen
from stemcodecs.learned.dose import dose_roots
from stemcodecs.learned.fit import JUDGED, RACE, WEIGHT_BITS, NetworkOptions, hidden_for, references_of
from stemcodecs.learned.image_features import ImageTrainingData, image_samples
from stemcodecs.learned.image_model import IMAGE_FEATURES, ImageModel, write_image_network
from stemcodecs.learned.integer_weights import integer_layers
from stemcodecs.learned.learner import Learner

__all__ = ["FEWEST_ROWS", "ImageFit", "fit_images", "image_layouts", "images_pay"]

Array = np.ndarray[Any, Any]

SAME_IMAGE = (
    (0, 0, -1), (0, -1, 0), (0, -1, -1), (0, -1, 1), (0, 0, -2), (0, -2, 0), (0, -2, -1), (0, -2, 1), (0, -1, -2),
    (0, -1, 2), (0, -2, -2), (0, -2, 2), (0, 0, -3), (0, -3, 0),
)  # fmt: skip
"""The nearest pixels of the same image."""
BEFORE = (
    (1, 0, 0), (1, 0, 1), (1, 1, 0), (1, 0, -1), (1, -1, 0), (1, 1, 1), (1, 1, -1), (1, -1, 1), (1, -1, -1), (1, 0, 2),
    (1, 2, 0), (2, 0, 0), (2, 0, 1), (2, 1, 0),
)  # fmt: skip
"""Pixels of the last image and of the one before it: what lies to the right and below is not decoded in this one."""
LONGEST = 4
"""Images of a chain: the first has none before it, and a longer chain leaves lanes empty and makes reading one slow."""
FEWEST_ROWS = 4
"""Of an image: detectors that are a line have none."""
TRIAL, SHORTEST_TRIAL = 8, 100
"""Images are tried for an eighth of the steps: what they need then is about what is left to gain above the best."""
TRIAL_LOSS = 1.01
CHAIN_GAIN = 0.002
"""Share of the bits that images before must save: with them, fewer lanes are in use."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ImageFit:
    """A fitted network, the layout that it is for, and what it is estimated to take.

    Attributes
    ----------
    model : ImageModel
    layout : GroupLayout
    bits : float
        Of a pixel, without the model.
    """

    model: ImageModel
    layout: GroupLayout
    bits: float


def image_layouts(layout: GroupLayout, *, chains: bool) -> list[GroupLayout]:
    """The layout of single images, and the one of chains of images where there are enough for it."""
    longest = min(LONGEST, layout.scan[1], layout.n_positions // FEWEST_TILES)
    out = [layout]
    if chains and longest > 1:
        out.append(GroupLayout(scan=layout.scan, detector=layout.detector, tile=(1, longest)))
    return out


def fit_images(
    plane: Array, layouts: list[GroupLayout], options: NetworkOptions, images: int | None = None
) -> ImageFit:
    """Fit a network to images.

    Parameters
    ----------
    plane : uint8 or uint16[n_images, n_pixels]
    layouts : list of GroupLayout
        To choose from, of the same images.
    options : NetworkOptions
    images : int, optional
        Images that the network will code, if they are more than these.
    """
    images = images or len(plane)
    race = max(options.steps // RACE, 1)
    total, done = options.steps + race * (len(layouts) - 1), 0

    def step() -> None:
        nonlocal done
        done += 1
        options.progress(done, total)

    found = []
    for layout in layouts:
        data = _training_data(plane, layout)
        learner = _learner(data, options.seed, images)
        losses = learner.train(race, options.steps, step)
        needed = losses[-max(race // JUDGED, 1) :].mean() * (1 + CHAIN_GAIN * data.chained)
        found.append((needed, layout, data, learner))
    _, layout, data, learner = min(found, key=lambda one: one[0])
    learner.train(options.steps, options.steps, step)
    model, bits = _in_integers(learner, data, layout, images)
    return ImageFit(model=model, layout=layout, bits=bits)


def images_pay(plane: Array, layouts: list[GroupLayout], options: NetworkOptions, bits: float) -> bool:
    """Whether a network for images may take less than so many bits a pixel, after a short fit.

    Parameters
    ----------
    plane, layouts, options
        See :func:`fit_images`.
    bits : float
        Of a pixel, by the best that is known.
    """
    steps = max(options.steps // TRIAL, SHORTEST_TRIAL)
    for layout in layouts:
        losses = _learner(_training_data(plane, layout), options.seed, len(plane)).train(steps, steps, lambda: None)
        if losses[-max(steps // JUDGED, 1) :].mean() < TRIAL_LOSS * bits:
            return True
    return False


def _training_data(plane: Array, layout: GroupLayout) -> ImageTrainingData:
    chained = layout.chain_length > 1
    wanted = SAME_IMAGE + (BEFORE if chained else ())
    neighbours = [neighbour for neighbour in wanted if may_be_seen(neighbour, layout.detector)]
    return ImageTrainingData(
        plane=plane,
        width=layout.detector[1],
        first=int(np.median(plane[:, 0])),
        dose=dose_roots(GroupedCounts(plane, layout, 0).doses).astype(np.int64),
        references=references_of(layout),
        neighbours=np.array(neighbours, np.int64).reshape(-1, 3),
        chained=any(reference for reference, _, _ in neighbours),
    )


def _learner(data: ImageTrainingData, seed: int, images: int) -> Learner:
    inputs = lane_features(tuple(map(tuple, data.neighbours.tolist()))) + IMAGE_FEATURES

    def samples(random: np.random.Generator, n: int) -> tuple[Array, Array, Array]:
        positions = random.integers(0, data.plane.shape[0], n)
        pixels = random.integers(0, data.plane.shape[1], n)
        features, low, up = np.empty((n, inputs), np.float32), np.empty(n, np.float32), np.empty(n, np.float32)
        image_samples(data, positions, pixels, features, low, up)
        return features, low, up

    hidden = hidden_for(images * data.plane.shape[1])
    return Learner(samples=samples, inputs=inputs, lanes=inputs, hidden=hidden, seed=seed, normal=False)


def _in_integers(
    learner: Learner, data: ImageTrainingData, layout: GroupLayout, images: int
) -> tuple[ImageModel, float]:  # fmt: skip
    """The network with as many bits a weight as pay."""
    network = learner.network()
    found = []
    for bits in WEIGHT_BITS:
        made = integer_layers(network, learner.sample[0], learner.lanes, bits)
        if made is None:
            continue
        model = ImageModel(
            detector=layout.detector, first=data.first, layers=made[0],
            neighbours=tuple((int(r), int(y), int(x)) for r, y, x in data.neighbours),
        )  # fmt: skip
        each = learner.bits(made[1])
        found.append((each * images * layout.n_pixels / 8 + len(write_image_network(model)), model, each))
    _, model, each = min(found, key=lambda one: one[0])
    return model, each
