"""Cross sections against published numbers; elements and lines that there are not."""

from __future__ import annotations

import numpy as np
import pytest

from stemcodecs.errors import ConfigurationError
from stemcodecs_pipelines.tomography.cross_sections import cross_sections

pytest.importorskip("xraylib")


def test_totals_and_line_energies():
    known = cross_sections(["Ca", "Fe"], 20.0)
    # NIST XCOM (doi:10.18434/T48G6X): Ca 13.06, Fe 25.68 cm²/g at 20 keV.
    np.testing.assert_allclose(known.beam, [13.06, 25.68], rtol=0.01)
    assert [line.name for line in known.lines] == ["Ca-K", "Fe-K"]
    # Kα 3.69 and 6.40 keV, with an eighth of Kβ at 4.01 and 7.06.
    assert [line.energy for line in known.lines] == pytest.approx([3.73, 6.48], abs=0.01)


def test_line_of_iron_is_absorbed_more_by_calcium_than_its_own():
    known = cross_sections(["Ca", "Fe"], 10.0)
    # Fe K lies above the edge of Ca (4.04 keV), Ca K below that of both.
    assert known.emitted[1, 0] > 4 * known.emitted[1, 1]


def test_groups_are_chosen_by_the_beam():
    assert cross_sections(["Au"], 20.0).lines[0].name == "Au-L"
    known = cross_sections(["Au", "Si", "O"], 20.0, ["Si-K", "Au-L"])
    assert [line.name for line in known.lines] == ["Si-K", "Au-L"]
    assert known.line_elements == [1, 0]
    assert known.emitted.shape == (2, 3)


@pytest.mark.parametrize(
    ("elements", "energy", "lines", "words"),
    [
        (["Xx"], 10.0, None, "no element 'Xx'"),
        ([], 10.0, None, "there are no elements"),
        (["Ca", "Ca"], 10.0, None, "named twice"),
        (["Ca"], -1.0, None, "out of range"),
        (["Ca"], float("nan"), None, "out of range"),
        (["Ca"], 10.0, ["Fe"], "'Fe' is not among the elements"),
        (["Ca"], 10.0, ["Ca-M"], "no line group 'Ca-M'"),
        (["Ca"], 10.0, [], "name each measured line once"),
        (["Ca"], 10.0, ["Ca", "Ca-K"], "name each measured line once"),
        (["Fe"], 5.0, ["Fe-K"], "does not excite Fe-K"),
        (["H"], 10.0, None, "does not excite a line of H"),
    ],
)
def test_what_is_not_known_is_one_line(elements, energy, lines, words):
    with pytest.raises(ConfigurationError, match=words):
        cross_sections(elements, energy, lines)
