"""A movie of an electron microscope in less than a tenth of its bytes, measured in two ways and read in three.

Run with ``python movie_in_tenths.py``. The idea is that of TCS-DL (doi:10.1016/j.patter.2021.100292), which
``papers/movies_against_jpeg.py`` holds against JPEG.
"""

import numpy as np
import zarr

from stemcodecs.movies import with_decoder
from stemcodecs.simulate import simulate_movie
from stemcodecs_pipelines import compress

movie = simulate_movie("nanoparticles", (40, 96, 96), "mixed", seed=7, dose=60)
np.save("movie.npy", movie.frames)


def psnr(frames):
    """Against the frames without noise, which only a simulation knows."""
    return 10 * np.log10(movie.white**2 / np.square(frames[...] - movie.clean).mean())


print(f"noisy frames: {psnr(movie.frames):.1f} dB")
for measurement in ("bins", "tiled"):
    done = compress("movie.npy", f"{measurement}.zarr", method=f"tcs:measurement={measurement}")
    frames = zarr.open_group(f"{measurement}.zarr", mode="r")["data"]
    print(f"{measurement}: {done.ratio:.1f} times smaller, {psnr(frames):.1f} dB")
    print(f"  read by gap-tv: {psnr(with_decoder(frames, 'gap-tv')):.1f} dB")
    sums = with_decoder(frames, "measurement")
    print(f"  what was measured: {sums.shape} of {sums.dtype}")
