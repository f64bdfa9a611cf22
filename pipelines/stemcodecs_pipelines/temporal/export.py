"""A trained network as an ONNX file with weights of 16 bits, and the card that says where they come from."""

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
from stemcodecs_pipelines.temporal.train import Training

__all__ = ["export_onnx", "onnx_bytes"]

OPSET = 17
_HALVED = 64
"""Tensors of at least so many values are stored in 16 bits: biases and single numbers are not worth a cast."""


def onnx_bytes(network: torch.nn.Module, frames: int, properties: dict[str, str]) -> bytes:
    """The network as `stemcodecs.temporal.runtime` runs it: inputs ``measured`` and ``masks``, output ``frames``.

    Parameters
    ----------
    network : Module
        See `stemcodecs_pipelines.temporal.networks`.
    frames : int
        Frames B of a measurement.
    properties : dict of str
        What the weights were trained for; decoding checks it.

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
    network = network.eval().to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    example = (torch.zeros(1, 1, 32, 36), torch.ones(1, frames, 32, 36))
    out: Any = io.BytesIO()
    with warnings.catch_warnings():
        # The exporter of torch's newer compiler needs a package more, and writes the same graph.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network, example, out, input_names=["measured", "masks"], output_names=["frames"], opset_version=OPSET,
            dynamic_axes={name: {2: "y", 3: "x"} for name in ("measured", "masks", "frames")}, dynamo=False,
        )  # fmt: skip
    model = onnx.load_from_string(out.getvalue())
    kept, casts = [], []
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.dtype == np.float32 and values.size >= _HALVED:
            kept.append(numpy_helper.from_array(values.astype(np.float16), f"{tensor.name}.half"))
            casts.append(helper.make_node("Cast", [f"{tensor.name}.half"], [tensor.name], to=TensorProto.FLOAT))
        else:
            kept.append(tensor)
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    # Names and line numbers of the training are no part of the weights.
    for node in model.graph.node:
        node.doc_string = ""
    for key, value in properties.items():
        entry = model.metadata_props.add()
        entry.key, entry.value = key, value
    onnx.checker.check_model(model)
    written: bytes = model.SerializeToString()
    return written


def export_onnx(training: Training, folder: Path, data: dict[str, Any], measurement: str, seed: int) -> Path:
    """Write the mean weights of a training as ``SHA256.onnx``, and their card as ``SHA256.json``.

    Parameters
    ----------
    training : Training
        Trained as far as it is.
    folder : Path
        Where to.
    data : dict
        What the network was trained on, for the card.
    measurement, seed
        Of the masks.

    Returns
    -------
    Path
        The file of weights.
    """
    options = training.options
    properties = {"frames": str(options.frames), "measurement": measurement, "seed": str(seed)}
    weights = onnx_bytes(training.mean_network, options.frames, properties)
    digest = hashlib.sha256(weights).hexdigest()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{digest}.onnx"
    path.write_bytes(weights)
    measured = [point for point in training.curve if not math.isnan(point.psnr)]
    card = {
        "sha256": digest,
        "measurement": measurement,
        "frames": options.frames,
        "seed": seed,
        "parameters": sum(p.numel() for p in training.network.parameters()),
        "training": asdict(options) | {"steps_done": training.step, "seconds": round(training.seconds)},
        "data": data,
        "validation_psnr": round(measured[-1].psnr, 2) if measured else None,
        "curve": [[point.step, float(f"{point.loss:.4g}"), round(point.psnr, 2)] for point in measured],
    }
    path.with_suffix(".json").write_text(json.dumps(card, indent=1) + "\n", encoding="utf-8")
    return path
