"""The forward model once more, from its equations, ray by ray and voxel by voxel: loops of plain Python."""

from __future__ import annotations

import math

import numpy as np


def turned(section, angle):
    """A section on the laboratory's grid, bilinear, nothing outside: [x][z]."""
    n = len(section)
    middle = (n - 1) / 2
    result = np.zeros((n, n))
    for i in range(n):
        for k in range(n):
            x, z = i - middle, k - middle
            a = x * math.cos(angle) - z * math.sin(angle) + middle
            b = x * math.sin(angle) + z * math.cos(angle) + middle
            i0, k0 = math.floor(a), math.floor(b)
            for p in (i0, i0 + 1):
                for q in (k0, k0 + 1):
                    if 0 <= p < n and 0 <= q < n:
                        result[i, k] += section[p][q] * (1 - abs(a - p)) * (1 - abs(b - q))
    return result


def along(column, place):
    """Linear interpolation in a list, nothing outside."""
    low = math.floor(place)
    return sum(column[j] * (1 - abs(place - j)) for j in (low, low + 1) if 0 <= j < len(column))


def depth_on_ray(attenuation, i, w, distance, point):
    """Optical depth from column i to the detector on the ray that crosses x = 0 at w, in units of a pixel."""
    n = len(attenuation)
    middle = (n - 1) / 2
    length = math.hypot(1, (point - w) / distance)
    total = 0.0
    for j in range(i, n):
        z = w + (point - w) * (j - middle) / distance
        total += (0.5 if j == i else 1.0) * length * along(attenuation[j], z + middle)
    return total


def depth(attenuation, i, k, distance, point):
    """Optical depth from voxel (i, k): between the two rays of the grid that pass it."""
    middle = (len(attenuation) - 1) / 2
    x, z = i - middle, k - middle
    w = point + (z - point) * distance / (distance - x)
    low = math.floor(w)
    part = w - low
    return (1 - part) * depth_on_ray(attenuation, i, low, distance, point) + part * depth_on_ray(
        attenuation, i, low + 1, distance, point
    )


def true_depth(attenuation, i, k, distance, point):
    """Optical depth from voxel (i, k) on its own ray: what a grid of rays comes close to."""
    middle = (len(attenuation) - 1) / 2
    x, z = i - middle, k - middle
    w = point + (z - point) * distance / (distance - x)
    return depth_on_ray(attenuation, i, w, distance, point)


def counts(density, angle, geometry, sections):
    """Counts [line][x] and transmission [x] of one section, density [element][x][z]."""
    lab = [turned(section, angle) for section in density]
    n, step = len(lab[0]), geometry.pixel_size
    beam = step * sum(mu * section for mu, section in zip(sections.beam, lab, strict=True))
    points, shares = geometry.detector()
    result = np.zeros((len(sections.lines), n))
    for number, line in enumerate(sections.lines):
        element = lab[sections.elements.index(line.element)]
        emitted = step * sum(mu * section for mu, section in zip(sections.emitted[number], lab, strict=True))
        for i in range(n):
            for k in range(n):
                if element[i, k] == 0:
                    continue
                arrived = math.exp(-sum(beam[i, :k]) - beam[i, k] / 2)
                escaped = sum(
                    share * math.exp(-depth(emitted, i, k, geometry.detector_distance / step, point / step))
                    for point, share in zip(points, shares, strict=True)
                )
                result[number, i] += arrived * element[i, k] * line.cross_section * escaped
    scale = geometry.photons * step * math.pi * (geometry.detector_diameter / 2) ** 2
    scale /= 4 * math.pi * geometry.detector_distance**2
    return scale * result, np.exp(-beam.sum(1))
