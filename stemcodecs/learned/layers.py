"""The layers of a network for one value of 64 lanes, whatever the network sees and whatever its outputs mean."""

from __future__ import annotations

from numba import int64

from stemcodecs.compiled import kernel
from stemcodecs.entropy.kernels.rans import LANES
from stemcodecs.learned.dense_ir import hidden_units, output_units

__all__ = ["network_outputs"]


@kernel(forceinline=True)
def network_outputs(path, quarters, network, pairs, first_bias_at, work):
    """Outputs of the lanes of some quarters, from ``pairs`` of inputs in ``work.inputs`` to ``work.outputs``.

    network : ``first``, ``second`` and ``last``, int32, flat, two weights each; ``first_bias``, from ``first_bias_at``
    on, ``second_bias`` and ``last_bias``; ``shifts`` and ``hidden``. work : ``one`` and ``two`` are hidden units.
    """
    half = network.hidden // 2
    for r in range(0, network.hidden, 4):
        hidden_units(
            path, work.inputs, int64(pairs), network.first, int64(r * pairs), network.first_bias,
            int64(first_bias_at + r), network.shifts[0], work.one, int64(r // 2 * LANES), quarters,
        )  # fmt: skip
    for r in range(0, network.hidden, 4):
        hidden_units(
            path, work.one, int64(half), network.second, int64(r * half), network.second_bias, int64(r),
            network.shifts[1], work.two, int64(r // 2 * LANES), quarters,
        )  # fmt: skip
    output_units(
        path, work.two, int64(half), network.last, int64(0), network.last_bias, int64(0), network.shifts[2],
        work.outputs, int64(0), quarters,
    )  # fmt: skip
