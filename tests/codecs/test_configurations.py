"""What metadata says of a codec makes an equal codec, for both formats of Zarr."""

from __future__ import annotations

import json
from typing import Any

import numcodecs
import numpy as np
import pytest
from zarr.registry import get_codec_class

from stemcodecs.codecs import (
    BitPack,
    Learned,
    NumcodecsBitPack,
    NumcodecsLearned,
    NumcodecsPca,
    NumcodecsPixelHistogram,
    NumcodecsPoissonHistogram,
    NumcodecsPoissonQuantize,
    NumcodecsTcs,
    Pca,
    PixelHistogram,
    PoissonHistogram,
    PoissonQuantize,
    Tcs,
)
from stemcodecs.errors import ConfigurationError

DIGEST = "ab" * 32
QUANTIZERS: list[dict[str, Any]] = [
    {},
    {"r": 0.5},
    {"r": "1/3", "gain": 2.5, "offset": np.int64(7)},
    {"r": np.float64(0.25), "saturation": 4000, "exact_below": 3},
    {"preset": "huang-255"},
    {"preset": "huang-511", "gain": 2},
]
CODECS = [
    PixelHistogram(),
    PixelHistogram(mode="scan"),
    PixelHistogram(model="data:,", model_sha256=DIGEST),
    BitPack(bits=9),
    Learned(),
    Learned(steps=12, seed=3, scan="none"),
    Learned(model="data:,", model_sha256=DIGEST),
    Pca(sha256=DIGEST),
    Pca(sha256=DIGEST, model="data:,", residual="lossless"),
    Pca(sha256=DIGEST, residual="bounded", bound=0.25),
    *(PoissonHistogram(**options) for options in QUANTIZERS),
    PoissonHistogram(mode="pixel", decoder="centroid"),
    *(PoissonQuantize(**options) for options in QUANTIZERS),
    PoissonQuantize(code_dtype="uint16"),
    Tcs(),
    Tcs(frames=30, measurement="random", seed=2**64 - 1, step=7, incoherent="measured"),
    Tcs(measurement="bins", time_bins=4, space_bins=2, decoder="interpolate"),
    Tcs(decoder="network", weights=DIGEST),
    Tcs(decoder="network", weights=DIGEST, model="data:,"),
]
NUMCODECS = [
    NumcodecsPixelHistogram(mode="pixel"),
    NumcodecsPixelHistogram(model="data:,", model_sha256=DIGEST),
    NumcodecsBitPack(bits=9),
    NumcodecsLearned(steps=12),
    NumcodecsLearned(model="data:,", model_sha256=DIGEST),
    NumcodecsPca(sha256=DIGEST, residual="bounded", bound=0.25),
    NumcodecsTcs(measurement="bins", time_bins=4, space_bins=2),
    NumcodecsTcs(decoder="network", weights=DIGEST, model="data:,"),
    *(NumcodecsPoissonHistogram(**options) for options in QUANTIZERS),
    *(NumcodecsPoissonQuantize(dtype="<u2", **options) for options in QUANTIZERS),
    NumcodecsPoissonQuantize(dtype=">u2", code_dtype="uint16"),
]


@pytest.mark.parametrize("codec", CODECS, ids=repr)
def test_zarr_3(codec: Any) -> None:
    stored = json.loads(json.dumps(codec.to_dict()))
    again = get_codec_class(stored["name"]).from_dict(stored)
    assert again == codec
    assert hash(again) == hash(codec)
    assert again.to_dict() == codec.to_dict()


@pytest.mark.parametrize("codec", NUMCODECS, ids=repr)
def test_zarr_2(codec: Any) -> None:
    numcodecs.register_codec(type(codec))
    stored = json.loads(json.dumps(codec.get_config()))
    again = numcodecs.get_codec(dict(stored))
    assert again == codec
    assert vars(again) == vars(codec)
    assert again.get_config() == stored


def test_a_bound_that_nothing_would_keep_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="residual 'bounded'"):
        Pca(sha256=DIGEST, residual="lossless", bound=0.25)


@pytest.mark.parametrize(
    ("configuration", "message"),
    [
        ({"steps": 0}, "steps 0 must be a whole number"),
        ({"steps": True}, "steps True must be"),
        ({"seed": -1}, "seed -1 must be"),
        ({"scan": "both"}, "scan 'both' is unknown"),
        ({"model": "data:,"}, "'model' and 'model_sha256' go together"),
    ],
)
def test_networks_are_not_fitted_by_impossible_settings(configuration: dict[str, Any], message: str) -> None:
    for codec in (Learned, NumcodecsLearned):
        with pytest.raises(ConfigurationError, match=message):
            codec(**configuration)
