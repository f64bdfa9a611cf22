"""Masks and sums against plain NumPy and plain Python."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from stemcodecs.errors import ConfigurationError
from stemcodecs.temporal import Sampling
from stemcodecs.temporal.masks import mask_of, mixed

KINDS = [
    {"frames": 10},
    {"frames": 7, "seed": 2**64 - 1},
    {"frames": 10, "measurement": "random", "seed": 3},
    {"frames": 10, "measurement": "bins", "time_bins": 4, "space_bins": 2},
    {"frames": 9, "measurement": "bins", "time_bins": 2, "space_bins": 3},
]


def splitmix(seed: int, number: int) -> int:
    z = (seed + (number + 1) * 0x9E3779B97F4A7C15) % 2**64
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 % 2**64
    z = (z ^ z >> 27) * 0x94D049BB133111EB % 2**64
    return z ^ z >> 31


def test_random_numbers_are_splitmix64():
    # The first output for seed 0 is known from its authors' C.
    assert splitmix(0, 0) == 0xE220A8397B1DCDAF
    for seed in (0, 1, 2**64 - 1):
        assert mixed(seed, 20).tolist() == [splitmix(seed, i) for i in range(20)]


@pytest.mark.parametrize("frames", [2, 7, 10, 30])
def test_tiled_masks_are_balanced(frames):
    masks = mask_of("tiled", frames, 5, (12, 9))
    assert (masks.sum(axis=0) == frames // 2).all()
    opened = masks[:, :4, :4].sum(axis=(1, 2))
    assert opened.max() - opened.min() <= 1
    assert np.array_equal(masks[:, 4:8, 4:8], masks[:, :4, :4])


def test_random_masks_open_half():
    masks = mask_of("random", 16, 1, (64, 64))
    assert abs(masks.mean() - 0.5) < 0.01
    assert not np.array_equal(masks, mask_of("random", 16, 2, (64, 64)))


@pytest.mark.parametrize("options", KINDS, ids=str)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("count", [1, 4, 7])
def test_sums_are_exact(options, dtype, count):
    sampling = Sampling(**options)
    top = np.iinfo(dtype).max
    frames = np.random.default_rng(0).integers(0, top, (count, 13, 11), dtype, endpoint=True)
    frames[:, :3] = top
    whole = frames[np.minimum(np.arange(sampling.frames), count - 1)].astype(object)
    if sampling.measurement == "bins":
        edges, s = sampling.bin_edges, sampling.space_bins
        expected = [
            [
                [whole[a:b, y : y + s, x : x + s].sum() for x in range(0, 11, s)]
                for y in range(0, 13, s)
            ]
            for a, b in pairwise(edges)
        ]  # fmt: skip
        numbers = sampling.measure(np.ones((1, 13, 11), np.uint8))
    else:
        masks = sampling.masks((13, 11))
        expected = [(whole * masks).sum(axis=0).tolist()]
        numbers = masks.sum(axis=0)[None]
    found = sampling.measure(frames)
    assert found.tolist() == np.array(expected, object).tolist()
    assert np.array_equal(sampling.opened((13, 11)), numbers)
    assert found.max() <= sampling.largest(np.dtype(dtype))


def test_largest_frames_do_not_overflow():
    for options in ({"frames": 128}, {"frames": 128, "measurement": "bins", "time_bins": 1, "space_bins": 16}):
        sampling = Sampling(**options)
        frames = np.full((128, 16, 16), 65535, np.uint16)
        opened = sampling.opened((16, 16)).astype(object)
        assert sampling.measure(frames).tolist() == (65535 * opened).tolist()


@pytest.mark.parametrize("step", [1, 2, 7, 64])
def test_a_step_is_kept(step):
    sampling = Sampling(step=step)
    total = np.arange(5000, dtype=np.uint16)
    back = sampling.quantise(total).astype(int) * step
    assert np.abs(back - total).max() <= step // 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"measurement": "holes"}, "'holes' is none of tiled, random, bins"),
        ({"frames": 1}, "frames 1 must be a whole number from 2 to 128"),
        ({"frames": 10.0}, "frames 10.0"),
        ({"seed": -1}, "seed -1"),
        ({"step": 0}, "step 0"),
        ({"time_bins": 2}, "time_bins 2 must be a whole number from 1 to 1 for measurement 'tiled'"),
        ({"measurement": "bins", "time_bins": 11}, "time_bins 11"),
        ({"measurement": "bins", "seed": 1}, "seed 1"),
    ],
)
def test_what_cannot_be_is_refused(options, message):
    with pytest.raises(ConfigurationError, match=message):
        Sampling(**options)
