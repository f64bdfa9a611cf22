"""See what self-absorption does to a fluorescence tomogram, and that its model undoes it.

A bead of calcium with six pillars of iron is simulated, 60 angles, and reconstructed twice: with and without the model
of Z. Di et al. 2017, doi:10.1364/OE.25.013107. Run with ``python tomography_self_absorption.py [tomogram.png]``; takes
about a minute and needs torch, xraylib and matplotlib.
"""

import sys

import numpy as np

from stemcodecs_pipelines.tomography.geometry import Geometry
from stemcodecs_pipelines.tomography.judge import concentration_errors
from stemcodecs_pipelines.tomography.phantom import make_phantom
from stemcodecs_pipelines.tomography.plot import draw_sections
from stemcodecs_pipelines.tomography.problem import simulate
from stemcodecs_pipelines.tomography.reconstruct import element_densities
from stemcodecs_pipelines.tomography.settings import DescentSettings

PIXELS, FIELD_CM = 32, 50e-4
picture = sys.argv[1] if len(sys.argv) > 1 else "tomogram.png"
phantom = make_phantom("calcium-iron", PIXELS)
geometry = Geometry(
    angles=np.linspace(0, 2 * np.pi, 60, endpoint=False),
    pixel_size=FIELD_CM / PIXELS,
    photons=1e7,
    detector_distance=1.6,
    detector_diameter=0.9,
)
problem = simulate(phantom, geometry, beam_energy=10.0)
shown = {"truth": phantom.density}
for name, absorbed in (("with self-absorption", True), ("without", False)):
    settings = DescentSettings(self_absorption=absorbed, total_variation=0.03)
    shown[name] = element_densities(problem, settings).density
    for error in concentration_errors(phantom.elements, shown[name], phantom.density):
        print(f"{name}: {error.element} mass × {error.mass_ratio:.3f}, map off by {error.relative_error:.1%}")
rows = {name: dict(zip(phantom.elements, density[:, PIXELS // 2], strict=True)) for name, density in shown.items()}
draw_sections(rows, 1e4 * geometry.pixel_size, picture)
