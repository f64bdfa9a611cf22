"""Simulated 4D-STEM scans whose true rate is known, and with it the Shannon bound."""

from stemcodecs.simulate.simulation import KINDS, Simulation, simulate_scan

__all__ = ["KINDS", "Simulation", "simulate_scan"]
