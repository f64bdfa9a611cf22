"""What a scan leaves open is removed, and nothing else."""

from __future__ import annotations

import numpy as np
import pytest

from stemcodecs.errors import ConfigurationError
from stemcodecs.metrics import align_objects, phase_mse


def smooth(shape, seed, width=2.0):
    noise = np.random.default_rng(seed).standard_normal(shape)
    ky, kx = (np.fft.fftfreq(n) for n in shape)
    image = np.fft.ifft2(np.fft.fft2(noise) * np.exp(-2 * (np.pi * width) ** 2 * (ky[:, None] ** 2 + kx**2))).real
    return image / image.std()


@pytest.fixture(scope="module")
def truth():
    shape = (72, 80)
    return (1 + 0.1 * smooth(shape, 1)) * np.exp(0.4j * smooth(shape, 2))


def disturbed(obj, shift=(0, 0), ramp=(0, 0), phase=0.0):
    """Moved by pixels, then turned by a ramp in cycles per field and by a phase."""
    ky, kx = (np.fft.fftfreq(n) for n in obj.shape)
    moved = np.fft.ifft2(np.fft.fft2(obj) * np.exp(-2j * np.pi * (shift[0] * ky[:, None] + shift[1] * kx)))
    y, x = (np.arange(n) / n for n in obj.shape)
    return moved * np.exp(1j * phase + 2j * np.pi * (ramp[0] * y[:, None] + ramp[1] * x))


@pytest.mark.parametrize(
    ("shift", "ramp", "phase"),
    [
        ((0, 0), (0, 0), 2.5),
        ((0, 0), (0.37, -2.8), -1.0),
        ((1.4, -2.6), (0, 0), 0.0),
        ((-0.73, 2.21), (1.3, -0.4), 3.0),
        ((-4.5, 3.3), (0.2, 5.1), 0.7),
    ],
)
@pytest.mark.parametrize("within", [False, True])
def test_phase_ramp_and_shift_are_removed(truth, shift, ramp, phase, within):
    support = np.zeros(truth.shape, bool)
    support[12:-12, 12:-12] = True
    obj = disturbed(truth, shift, ramp, phase)
    aligned = align_objects(obj, truth, support if within else None)
    assert np.abs(aligned - truth)[support].max() < 2e-3
    assert phase_mse(obj, truth, support) < 1e-6


def test_real_differences_stay(truth):
    bump = np.zeros(truth.shape)
    bump[30:40, 30:40] = 0.5
    error = phase_mse(disturbed(truth * np.exp(1j * bump), (0.3, 0.2), (0.5, 0.1), 1.0), truth)
    assert error == pytest.approx(((bump - bump.mean()) ** 2).mean(), rel=0.1)


def test_phase_noise_of_known_variance(truth):
    noise = 0.05 * np.random.default_rng(9).standard_normal(truth.shape)
    assert phase_mse(truth * np.exp(1j * noise), truth) == pytest.approx(0.05**2, rel=0.05)


def test_what_cannot_be_aligned(truth):
    with pytest.raises(ConfigurationError, match="one shape"):
        phase_mse(truth[1:], truth)
    with pytest.raises(ConfigurationError, match="support is empty"):
        align_objects(truth, truth, np.zeros(truth.shape))
