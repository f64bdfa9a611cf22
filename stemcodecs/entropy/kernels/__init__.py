"""Compiled loops: rANS, lane arithmetic, groups of 64 positions, transposes; and what they run on."""
