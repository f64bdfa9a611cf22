"""Benchmarks: they measure and print, and assert no time."""
