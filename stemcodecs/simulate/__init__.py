"""Simulated 4D-STEM scans, movies and tilt series whose truth is known, and of scans the Shannon bound too."""

from stemcodecs.simulate.movies import MOTIONS, MOVIES, Movie, simulate_movie
from stemcodecs.simulate.simulation import KINDS, Simulation, simulate_scan
from stemcodecs.simulate.tilt_series import TiltSeries, simulate_tilt_series

__all__ = [
    "KINDS",
    "MOTIONS",
    "MOVIES",
    "Movie",
    "Simulation",
    "TiltSeries",
    "simulate_movie",
    "simulate_scan",
    "simulate_tilt_series",
]
