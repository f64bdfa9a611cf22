"""Movies in the same bytes, by other means: image codecs, the temporal mean, and what a filter makes of them.

The pieces of a comparison of temporal compressive sensing. Image codecs follow the protocol of TCS-DL (Patterns 2,
100292, 2021, doi:10.1016/j.patter.2021.100292): every image in 1/B of its raw size. It judges against frames that were
denoised by BM3D; where a movie is simulated, frames without noise are there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from io import BytesIO
from typing import Any

import numpy as np

from stemcodecs.codecs import Tcs
from stemcodecs.errors import ConfigurationError
from stemcodecs.temporal.gap_tv import denoise
from stemcodecs.temporal.weights import NETWORKS, shipped_for

__all__ = ["Coded", "Coder", "coders", "denoised_by_bm3d", "filtered", "jpeg", "jpeg_xl", "psnr", "temporal_mean"]

Array = np.ndarray[Any, Any]
Coded = tuple[int, Array]
"""Bytes, and the frames that they give."""
Coder = Callable[[Array], Coded]
"""Codes the frames of one measurement: uint8 (B, y, x)."""

STRENGTHS, TIME, ROUNDS = (0.03, 0.1, 0.3, 1.0), 3.0, 30
"""Of the filter: weights in standard deviations of the frames, how much more a change in time counts, and steps."""
_TIME_BINS = {30: 5}
"""Of bins, for B frames; else 4: as many numbers as one frame, or a little more."""


def _best_quality(encode: Callable[[float], Any], budget: int, low: float, high: float) -> bytes:
    """The best of a codec's qualities that fits a budget; the worst where none does."""
    best = bytes(encode(low))
    for _ in range(7):
        middle = (low + high) / 2
        data = bytes(encode(middle))
        if len(data) <= budget:
            best, low = data, middle
        else:
            high = middle
    return best


def jpeg(frames: Array) -> Coded:
    """Every image in 1/B of its raw size, at the best quality that fits; B is the number of frames."""
    from PIL import Image

    size, out = 0, []
    for frame in frames:

        def encode(quality: float, frame: Array = frame) -> Any:
            # Pillow, which comes with matplotlib; the bytes are those of imagecodecs: both call libjpeg-turbo.
            Image.fromarray(frame).save(file := BytesIO(), "JPEG", quality=round(quality))
            return file.getvalue()

        data = _best_quality(encode, frame.size // len(frames), 1, 95)
        size += len(data)
        out.append(np.asarray(Image.open(BytesIO(data))))
    return size, np.stack(out)


def jpeg_xl(frames: Array) -> Coded:
    """All frames as one tall image, in the bytes of one of them."""
    import imagecodecs

    tall = frames.reshape(-1, frames.shape[-1])
    data = _best_quality(
        lambda q: imagecodecs.jpegxl_encode(tall, distance=-q, effort=5, numthreads=1),
        tall.size // len(frames), -25, -0.1,
    )  # fmt: skip
    return len(data), imagecodecs.jpegxl_decode(data).reshape(frames.shape)


def temporal_mean(frames: Array) -> Coded:
    """One frame for all, in the bytes of a raw one."""
    mean = frames.mean(axis=0)
    return mean.size, np.repeat(mean[None], len(frames), axis=0)


def coders(frames: int, step: int) -> dict[str, Coder]:
    """Everything that can be compared here, by name.

    Parameters
    ----------
    frames : int
        Frames B of a measurement.
    step : int
        Quantisation step of the sums.
    """
    out: dict[str, Coder] = {}
    if find_spec("PIL"):
        out["JPEG"] = jpeg
    if find_spec("imagecodecs"):
        out["JPEG-XL"] = jpeg_xl
    out["temporal mean"] = temporal_mean
    common: dict[str, Any] = {"frames": frames, "step": step, "incoherent": "measured"}
    bins: dict[str, Any] = {"measurement": "bins", "time_bins": _TIME_BINS.get(frames, 4), "space_bins": 2}
    for measured, decoders in (
        (Tcs(**common, **bins), ("interpolate", "gap-tv", "network")),
        (Tcs(**common, measurement="tiled"), ("gap-tv", "network", "birnat")),
        (Tcs(**common, measurement="random"), ("gap-tv",)),
    ):
        for decoder in decoders:
            named: dict[str, Any] = {"decoder": decoder}
            if decoder in NETWORKS:
                named["weights"] = shipped_for(measured.sampling, NETWORKS[decoder])
                if named["weights"] is None or not find_spec("onnxruntime"):
                    continue
            out[f"{measured.measurement}, {decoder}"] = _coder(replace(measured, **named))
    return out


def _coder(codec: Tcs) -> Coder:
    def code(frames: Array) -> Coded:
        data = codec.encode_chunk(frames)
        return len(data), codec.decode_chunk(data)

    return code


def filtered(frames: Array, reference: Array) -> Array:
    """Frames behind a total-variation filter in space and time, as a codec's user could add one.

    Its strength is the one that comes nearest to the reference: more than a user can know.

    Parameters
    ----------
    frames, reference : ndarray
        (time, y, x).

    Returns
    -------
    ndarray of float32
        The frames themselves, where no strength brings them nearer.
    """
    noisy = np.ascontiguousarray(frames, np.float32)
    best, least = noisy, float(np.square(noisy - reference).mean())
    for strength in STRENGTHS:
        out, dual = np.empty_like(noisy), np.zeros((3, *noisy.shape), np.float32)
        denoise(noisy, dual, max(strength * float(noisy.std()), 1e-6), TIME, ROUNDS, out)
        apart = float(np.square(out - reference).mean())
        if apart < least:
            best, least = out, apart
    return best


def denoised_by_bm3d(frames: Array) -> Array:
    """Each frame denoised by itself by BM3D (Dabov et al. 2007, doi:10.1109/TIP.2007.901238): the paper's reference.

    The noise is taken from the differences of consecutive frames, of which motion is a part.

    Parameters
    ----------
    frames : ndarray
        (time, y, x), at least two of them.

    Returns
    -------
    ndarray of float32

    Raises
    ------
    ConfigurationError
        The package bm3d is not installed.
    """
    try:
        import bm3d
    except ImportError:
        raise ConfigurationError(
            "denoised references need the package bm3d; install it with: pip install bm3d"
        ) from None
    given = frames.astype(np.float64)
    squares = np.square(np.diff(given, axis=0)).mean(axis=(1, 2)) / 2
    noise = float(np.sqrt(squares.min()))
    return np.stack([bm3d.bm3d(frame, sigma_psd=noise) for frame in given]).astype(np.float32)


def psnr(frames: Array, reference: Array, white: float = 255.0) -> float:
    """Mean over the frames, in dB of white."""
    squares = np.square((frames.astype(np.float64) - reference) / white).mean(axis=(1, 2))
    return float(-10 * np.log10(np.maximum(squares, 1e-12)).mean())
