"""Simulated 4D-STEM scans and movies whose truth is known, and of scans the Shannon bound too."""

from stemcodecs.simulate.movies import MOTIONS, MOVIES, Movie, simulate_movie
from stemcodecs.simulate.simulation import KINDS, Simulation, simulate_scan

__all__ = ["KINDS", "MOTIONS", "MOVIES", "Movie", "Simulation", "simulate_movie", "simulate_scan"]
