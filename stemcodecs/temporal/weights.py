"""Weights of networks by their digest: shipped with the package, or inside the configuration of an array."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from pathlib import Path

from stemcodecs.errors import ConfigurationError
from stemcodecs.temporal.sampling import Sampling

__all__ = ["MOST_BYTES", "NETWORKS", "as_uri", "fitting", "load_weights", "shipped", "shipped_for"]

NETWORKS = {"network": "compact", "birnat": "birnat"}
"""Decoders that need weights, and the network that these are of."""
FOLDER = Path(__file__).parent / "shipped_weights"
MOST_BYTES = 16 << 20
"""Weights in a configuration are read whenever the array is opened."""
_PREFIX = "data:application/octet-stream;base64,"


def fitting(sampling: Sampling) -> dict[str, str]:
    """What weights are trained for, as it is written into them: they decode no other measurements."""
    of_kind = ("time_bins", "space_bins") if sampling.measurement == "bins" else ("seed",)
    names = ("frames", "measurement", *of_kind)
    return {name: str(getattr(sampling, name)) for name in names}


def shipped() -> dict[str, Path]:
    """Files of the weights that come with the package, by their sha256 as their names state it."""
    return {path.stem: path for path in sorted(FOLDER.glob("*.onnx"))}


def as_uri(weights: bytes) -> str:
    """Weights as text for a configuration.

    Raises
    ------
    ConfigurationError
        They are too large for that.
    """
    if len(weights) > MOST_BYTES:
        raise ConfigurationError(
            f"weights of {len(weights)} bytes are too large to travel with an array (at most {MOST_BYTES}); "
            "train a narrower network"
        )
    return _PREFIX + base64.b64encode(weights).decode("ascii")


def load_weights(sha256: str, model: str | None) -> bytes:
    """Weights with this digest, checked.

    Parameters
    ----------
    sha256 : str
        64 hexadecimal digits.
    model : str, optional
        The weights as a ``data:`` URI; else they are among those shipped.

    Raises
    ------
    ConfigurationError
        There are none, or they are damaged.
    """
    if model is None:
        path = shipped().get(sha256)
        if path is None:
            raise ConfigurationError(
                f"no weights {sha256[:16]}… come with this stemcodecs; upgrade it, or read the movie with the decoder "
                "gap-tv (stemcodecs.movies.with_decoder)"
            )
        data = path.read_bytes()
    else:
        data = _from_uri(model)
    if hashlib.sha256(data).hexdigest() != sha256:
        raise ConfigurationError(
            f"the weights {sha256[:16]}… are damaged; restore them from another copy, or read the movie with the "
            "decoder gap-tv (stemcodecs.movies.with_decoder)"
        )
    return data


def _from_uri(model: str) -> bytes:
    if not model.startswith(_PREFIX) or len(model) > 2 * MOST_BYTES:
        raise ConfigurationError("the weights in the configuration are no data: URI of this package; restore it")
    try:
        return base64.b64decode(model[len(_PREFIX) :], validate=True)
    except (binascii.Error, ValueError):
        raise ConfigurationError("the weights in the configuration are damaged; restore the array's metadata") from None


def shipped_for(sampling: Sampling, network: str = "compact") -> str | None:
    """Digest of the shipped weights for such measurements, as the cards beside them say; None where there are none."""
    asked = {"network": network, **fitting(sampling)}
    for digest, path in shipped().items():
        card = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        if {name: str(card.get(name)) for name in asked} == asked:
            return digest
    return None
