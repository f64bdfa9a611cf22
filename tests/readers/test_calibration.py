"""Units as programs spell them."""

from __future__ import annotations

import numpy as np
import pytest

from stemcodecs.readers.calibration import clean_units


@pytest.mark.parametrize(
    "said",
    ["", " ", "_None_", "<undefined>", "Undefined", "px", "[px]", "none", None, b"_None_", "\0\0", np.array("px")],
)
def test_words_for_no_units(said):
    assert clean_units(said) is None


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("µm", "µm"),
        ("\N{GREEK SMALL LETTER MU}m", "µm"),
        (b"\xb5m", "µm"),
        ("µm".encode(), "µm"),
        ("Âµm", "µm"),
        (np.bytes_(b"\xb5m"), "µm"),
        (np.array([b"\xb5rad"]), "µrad"),
        (b"nm\0\0", "nm"),
        ("\N{ANGSTROM SIGN}^-1", "Å^-1"),
        (b"1/\xc5", "1/Å"),
        ("[n_m^-1]", "nm^-1"),
        ("Å", "Å"),
    ],
)
def test_one_spelling_of_micro_and_angstrom(said, meant):
    assert clean_units(said) == meant
