"""Eigen-patterns of a whole scan, fitted out of core."""
