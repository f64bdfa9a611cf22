"""A Merlin .mib from a microscope: read in place, compressed, and written as an HDF5 file for other programs.

Run with ``python merlin_mib.py [FILE.mib [ROWS COLUMNS [FLYBACK]]]``; needs ``pip install 'stemcodecs[readers]'``. Rows
and columns of the scan are read from the times of the frames, where the camera waited for each line; give them where it
did not, and the frames at the end of each line that belong to no position. Without a file one is simulated.
"""

import sys

import numpy as np

from stemcodecs.readers import open_scan
from stemcodecs.simulate import simulate_scan
from stemcodecs_pipelines import compress, decompress


def write_mib(path: str, frames: np.ndarray, per_line: int) -> None:
    """Frames of one Medipix chip, each behind a header; half a second passes before every line. And the .hdr file."""
    with open(path.replace(".mib", ".hdr"), "w") as file:
        file.write(f"Frames in Acquisition (Number):\t{len(frames)}\nFrames per Trigger (Number):\t1\n")
    with open(path, "wb") as file:
        for i, frame in enumerate(frames):
            clock = f"2026-01-01T10:00:{0.5 * (i // per_line + 1) + 0.001 * i:09.6f}Z"
            size = f"{frame.shape[1]:04},{frame.shape[0]:04}"
            file.write(f"MQ1,{i + 1:06},00384,01,{size},U16,   1x1,01,{clock},990000ns,12,".encode().ljust(384))
            file.write(frame.astype(">u2").tobytes())


path, *numbers = sys.argv[1:] or ["simulated.mib"]
if not sys.argv[1:]:
    write_mib(path, simulate_scan("lattice", (8, 12), (64, 64), seed=2).counts.reshape(-1, 64, 64), per_line=12)
how = {"scan_shape": [int(n) for n in numbers[:2]], "drop_flyback": int((numbers[2:] or [0])[0])} if numbers else {}

with open_scan(path, **how) as scan:
    print(f"{path}: {' × '.join(map(str, scan.shape))} of {scan.dtype}, {', '.join(scan.dims)}")
    print("\n".join(scan.remarks) or "no frame is left out")  # what a run that was stopped lacks is named here
    done = compress(scan, "merlin.zarr", overwrite=True)
print(f"merlin.zarr: {done.ratio:.1f} times smaller, every value verified")
decompress("merlin.zarr", "merlin.h5", overwrite=True)  # for programs that read no Zarr
