"""A trained network as an ONNX file with weights of 8 bits, and the card that says where they come from."""

from __future__ import annotations

import hashlib
import io
import json
import math
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from stemcodecs.errors import ConfigurationError
from stemcodecs.temporal.sampling import Sampling
from stemcodecs.temporal.weights import fitting
from stemcodecs_pipelines.temporal.networks import CompactNetwork
from stemcodecs_pipelines.temporal.tiled_network import TiledNetwork
from stemcodecs_pipelines.temporal.train import Training

__all__ = ["export_onnx", "onnx_bytes"]

OPSET = 17
_PACKED = 256
"""Tensors of at least so many values are stored in 8 bits: biases and single numbers are not worth it."""
_FINE = ".enter.weight"
"""Kernels that are stored in 16 bits: of tiles, they are sums of those of all masks, larger than those of frames."""


def onnx_bytes(network: torch.nn.Module, sampling: Sampling, kind: str = "compact") -> bytes:
    """The network as `stemcodecs.temporal.runtime` runs it: inputs ``measured`` and ``masks``, output ``frames``.

    A network of bins has no ``masks``.

    Parameters
    ----------
    network : Module
        See `stemcodecs_pipelines.temporal.networks`.
    sampling : Sampling
        What the weights were trained for; decoding checks it.
    kind : {"compact", "birnat"}
        Which network it is.

    Raises
    ------
    ConfigurationError
        onnx is not installed.
    """
    try:
        import onnx
        from onnx import TensorProto, helper, numpy_helper
    except ImportError:
        raise ConfigurationError(
            "exporting a network needs onnx; install it with: pip install 'stemcodecs[train]'"
        ) from None
    if isinstance(network, CompactNetwork) and sampling.measurement == "tiled":
        network = TiledNetwork(network, sampling)
    network = network.eval().to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    example: tuple[torch.Tensor, ...] = (torch.zeros(1, *sampling.plane_shape((32, 36))),)
    if sampling.measurement != "bins":
        example += (torch.ones(1, sampling.frames, 32, 36),)
    names = ["measured", "masks"][: len(example)]
    out: Any = io.BytesIO()
    with warnings.catch_warnings():
        # The exporter of torch's newer compiler needs a package more, and writes the same graph.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network, example, out, input_names=names, output_names=["frames"], opset_version=OPSET,
            dynamic_axes={name: {2: f"{name}_y", 3: f"{name}_x"} for name in (*names, "frames")}, dynamo=False,
        )  # fmt: skip
    model = onnx.load_from_string(out.getvalue())
    kept, unpacked = [], []
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.dtype == np.float32 and values.size >= _PACKED:
            name = tensor.name
            # Each row of a kernel in units of its own; onnxruntime multiplies them out once, when it reads the file.
            rows = np.abs(values).reshape(len(values), -1).max(axis=1).reshape(-1, *[1] * (values.ndim - 1))
            bits = 16 if tensor.name.endswith(_FINE) else 8
            scale = (np.maximum(rows, 1e-12) / (2 ** (bits - 1) - 1)).astype(np.float32)
            whole = np.rint(values / scale).astype(f"i{bits // 8}")
            kept += [numpy_helper.from_array(whole, f"{name}.whole"), numpy_helper.from_array(scale, f"{name}.scale")]
            unpacked.append(helper.make_node("Cast", [f"{name}.whole"], [f"{name}.cast"], to=TensorProto.FLOAT))
            unpacked.append(helper.make_node("Mul", [f"{name}.cast", f"{name}.scale"], [name]))
        else:
            kept.append(tensor)
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    nodes = [*unpacked, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    # Names and line numbers of the training are no part of the weights.
    for node in model.graph.node:
        node.doc_string = ""
    for key, value in {"network": kind, **fitting(sampling)}.items():
        entry = model.metadata_props.add()
        entry.key, entry.value = key, value
    onnx.checker.check_model(model)
    written: bytes = model.SerializeToString()
    return written


def export_onnx(training: Training, folder: Path, data: dict[str, Any]) -> Path:
    """Write the mean weights of a training as ``SHA256.onnx``, and their card as ``SHA256.json``.

    Parameters
    ----------
    training : Training
        Trained as far as it is.
    folder : Path
        Where to.
    data : dict
        What the network was trained on, for the card.

    Returns
    -------
    Path
        The file of weights.
    """
    options = training.options
    sampling = training.movies.sampling
    weights = onnx_bytes(training.mean_network, sampling, options.network)
    digest = hashlib.sha256(weights).hexdigest()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{digest}.onnx"
    path.write_bytes(weights)
    measured = [point for point in training.curve if not math.isnan(point.psnr)]
    card = {
        "sha256": digest,
        "network": options.network,
        **{name: int(value) if value.isdigit() else value for name, value in fitting(sampling).items()},
        "parameters": sum(p.numel() for p in training.network.parameters()),
        "training": asdict(options) | {"steps_done": training.step, "seconds": round(training.seconds)},
        "data": data,
        "validation_psnr": round(measured[-1].psnr, 2) if measured else None,
        "curve": [[point.step, float(f"{point.loss:.4g}"), round(point.psnr, 2)] for point in measured],
    }
    path.with_suffix(".json").write_text(json.dumps(card, indent=1) + "\n", encoding="utf-8")
    return path
