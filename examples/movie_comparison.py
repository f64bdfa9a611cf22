"""One movie in the same bytes by several means: pictures like figures 3 and 5 of TCS-DL, and quality against both
references, the frames without noise and frames denoised by BM3D (where bm3d is installed).

Run with ``python movie_comparison.py``; needs matplotlib. TCS-DL: doi:10.1016/j.patter.2021.100292.
"""

from importlib.util import find_spec
from pathlib import Path

import numpy as np

from stemcodecs.metrics import ssim
from stemcodecs.simulate import simulate_movie
from stemcodecs_pipelines.temporal.comparison import coders, denoised_by_bm3d, filtered, psnr
from stemcodecs_pipelines.temporal.comparison_figures import draw_frames, draw_quality

SHOWN = ("JPEG", "JPEG, filtered", "temporal mean", "bins, interpolate", "bins, network", "tiled, network")
curves, shown = {}, {}
for frames, step in ((10, 8), (20, 12), (30, 20)):
    movie = simulate_movie("nanoparticles", (frames, 128, 128), "slow", seed=7, dose=60)
    references = {"clean": movie.clean}
    if find_spec("bm3d"):
        references["BM3D"] = denoised_by_bm3d(movie.frames)
    found = {}
    for name, code in coders(frames, step).items():
        size, found[name] = code(movie.frames)
        print(f"B = {frames}: {name:20}{movie.frames.size / size:6.1f} times smaller", end="")
        if name.startswith("JPEG"):
            found[f"{name}, filtered"] = filtered(found[name], movie.clean)
            print(f", filtered {psnr(found[f'{name}, filtered'], movie.clean):.2f} dB", end="")
        print("".join(f", {psnr(found[name], r):.2f} dB of {kind}" for kind, r in references.items()))
    for name in SHOWN:
        if name in found:
            alike = np.mean([ssim(f, c, 255) for f, c in zip(found[name], movie.clean, strict=True)])
            curves.setdefault(name, {})[frames] = (psnr(found[name], movie.clean), float(alike))
    if frames == 10:
        shown = {"without noise": movie.clean, "raw": movie.frames, **{n: found[n] for n in SHOWN if n in found}}
draw_frames(shown, (0, 4, 9), Path("movie_frames.png"))
draw_quality(curves, Path("movie_quality.png"))
