"""Wavelengths, pixels and the turning of scans and patterns."""

from __future__ import annotations

import numpy as np
import pytest

from stemcodecs.errors import ConfigurationError
from stemcodecs_pipelines.ptychography.forward import diffraction_patterns, shift_ramp
from stemcodecs_pipelines.ptychography.geometry import (
    Optics,
    Orientation,
    raster_positions,
    rotate_positions,
    wavelength_of,
)
from stemcodecs_pipelines.ptychography.probe import aperture_probe, probe_from_patterns, probe_modes, propagate
from stemcodecs_pipelines.ptychography.units import angle_unit, length_unit, reciprocal_unit
from tests.pipelines.ptychography.simulated import PIXEL, SIDE, WAVELENGTH, first_probe


def test_wavelengths_are_those_of_the_tables():
    assert wavelength_of(300e3, "electron") == pytest.approx(1.96875e-12, rel=1e-5)
    assert wavelength_of(60e3, "electron") == pytest.approx(4.86604e-12, rel=1e-5)
    assert wavelength_of(8.8e3, "photon") == pytest.approx(1.40891e-10, rel=1e-5)
    with pytest.raises(ConfigurationError, match="positive"):
        wavelength_of(0, "photon")
    with pytest.raises(ConfigurationError, match="electron or photon"):
        wavelength_of(1e3, "neutron")


def test_the_object_pixel_is_that_of_the_fourier_transform():
    optics = Optics.of(energy_ev=8.8e3, particle="photon", distance=1.92, detector_pixel=75e-6)
    assert optics.object_pixel(128) == pytest.approx(optics.wavelength * 1.92 / (128 * 75e-6))
    same = Optics.of(energy_ev=8.8e3, particle="photon", detector_angle=75e-6 / 1.92)
    assert same.object_pixel(128) == pytest.approx(optics.object_pixel(128))
    with pytest.raises(ConfigurationError, match="not known"):
        Optics.of(energy_ev=8.8e3, particle="photon", distance=1.92)
    with pytest.raises(ConfigurationError, match="but not both"):
        Optics.of(energy_ev=8.8e3, particle="photon", distance=1.92, detector_pixel=1e-6, detector_angle=1e-4)


def test_a_scan_turns_from_x_to_y():
    positions = raster_positions((2, 3), (5.0, 1.0))
    assert positions.tolist() == [[0, 0], [0, 1], [0, 2], [5, 0], [5, 1], [5, 2]]
    turned = raster_positions((1, 3), (1.0, 1.0), 90)
    assert np.allclose(turned, [[0, 0], [1, 0], [2, 0]])
    assert np.allclose(rotate_positions(turned, -90), [[0, 0], [0, 1], [0, 2]])
    with pytest.raises(ConfigurationError, match="give sizes and steps"):
        raster_positions((2, 3), (0.0, 1.0))


def test_patterns_are_transposed_and_then_flipped():
    pattern = np.arange(6).reshape(1, 2, 3)
    assert Orientation(transpose=True).apply(pattern)[0].tolist() == [[0, 3], [1, 4], [2, 5]]
    assert Orientation(transpose=True, flip_y=True).apply(pattern)[0].tolist() == [[2, 5], [1, 4], [0, 3]]
    assert Orientation(flip_x=True).apply(pattern)[0].tolist() == [[2, 1, 0], [5, 4, 3]]


def test_a_wave_that_is_tilted_towards_x_arrives_at_larger_x():
    x = np.arange(SIDE)
    tilted = np.exp(2j * np.pi * 3 * x / SIDE) * np.ones((SIDE, 1))
    pattern = diffraction_patterns(np.ones((SIDE, SIDE)), tilted, np.zeros((1, 2)))[0]
    assert np.argwhere(pattern > 1).tolist() == [[SIDE // 2, SIDE // 2 + 3]]


def test_fractions_move_the_probe():
    probe = first_probe()
    moved = np.fft.ifft2(np.fft.fft2(probe) * shift_ramp(np.array([2.0, -3.0]), SIDE))
    assert np.allclose(moved, np.roll(probe, (2, -3), (0, 1)), atol=1e-5)


def test_a_probe_out_of_focus_comes_back_into_it():
    far = aperture_probe(SIDE, semi_angle=0.021, defocus=3e-8, pixel_size=PIXEL, wavelength=WAVELENGTH)
    focus = aperture_probe(SIDE, semi_angle=0.021, defocus=0.0, pixel_size=PIXEL, wavelength=WAVELENGTH)
    assert np.allclose(propagate(far, -3e-8, PIXEL, WAVELENGTH), focus, atol=1e-5)
    assert np.abs(focus).argmax() == SIDE // 2 * SIDE + SIDE // 2
    assert (np.abs(far) ** 2).sum() == pytest.approx(1)
    with pytest.raises(ConfigurationError, match="check the convergence angle"):
        aperture_probe(SIDE, semi_angle=0.1, defocus=0.0, pixel_size=PIXEL, wavelength=WAVELENGTH)


def test_the_patterns_show_the_aperture():
    vacuum = np.abs(np.fft.fftshift(np.fft.fft2(first_probe()))) ** 2
    probe = probe_from_patterns(vacuum, defocus=8e-9, pixel_size=PIXEL, wavelength=WAVELENGTH)
    overlap = np.abs((probe * np.conj(first_probe())).sum())
    assert overlap == pytest.approx(1, abs=0.01)
    with pytest.raises(ConfigurationError, match="empty"):
        probe_from_patterns(0 * vacuum, defocus=0.0, pixel_size=PIXEL, wavelength=WAVELENGTH)


def test_modes_keep_what_is_known():
    modes = probe_modes(first_probe()[None], 4)
    assert np.array_equal(modes[0], first_probe())
    norms = np.linalg.norm(modes, axis=(1, 2))
    assert np.allclose(norms[1:], 0.3 * norms[0])
    assert np.linalg.matrix_rank(modes.reshape(4, -1)) == 4
    with pytest.raises(ConfigurationError, match="choose 1 to 10"):
        probe_modes(first_probe()[None], 11)


def test_units():
    assert length_unit("nm") == length_unit("[n_m]") == 1e-9
    assert length_unit("µm") == length_unit("um") == 1e-6
    assert length_unit("Å") == 1e-10
    assert angle_unit("mrad") == 1e-3
    assert reciprocal_unit("1/nm") == pytest.approx(1e9)
    assert reciprocal_unit("Å^-1") == pytest.approx(1e10)
    assert length_unit("mrad") is reciprocal_unit("nm") is angle_unit(None) is None
