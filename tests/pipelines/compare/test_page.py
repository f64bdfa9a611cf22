"""The page of a comparison: what stands in it, that names are never markup, and that it needs nothing else."""

from __future__ import annotations

import base64
import io
import re
import sys
from dataclasses import replace
from importlib.resources import files
from itertools import pairwise

import numpy as np
import pytest

from stemcodecs.errors import ConfigurationError, DestinationError
from stemcodecs_pipelines.compare.page.write import render_page, write_page
from stemcodecs_pipelines.compare.report import Pictures, Recommendation, Sample
from tests.pipelines.compare.made_up import LOSSY, VALUES, made_up_report
from tests.pipelines.compare.page_elements import contrast, elements_of

pytest.importorskip("matplotlib")

HOSTILE = "<script>alert('1')</script>\"><img src=x onerror=alert(1)></svg></style>{{ 7 * 7 }}$\\frac{1}$&amp;\u4e2d"


@pytest.fixture(scope="module")
def page():
    return render_page(made_up_report())


@pytest.fixture(scope="module")
def elements(page):
    return elements_of(page)


def found(elements, tag):
    return [e for e in elements if e.tag == tag]


def table(elements, name):
    """Cells of a table, row by row, the rows of the body only."""
    ids = {e.attributes["id"]: e for e in elements if "id" in e.attributes}
    caption = ids[f"{name}-caption"]
    of = caption.parents[-2]
    rows = [e for e in elements if e.tag == "tr" and of in e.parents and "tbody" in e.above]
    return [[e.text.strip() for e in elements if row in e.parents and e.tag in ("th", "td")] for row in rows]


def test_loads_and_runs_nothing(page, elements):
    for element in elements:
        assert element.tag not in {"script", "iframe", "object", "embed", "form", "base", "foreignobject"}
        for name, value in element.attributes.items():
            assert not name.startswith("on"), (element.tag, name)
            if name in {"src", "href", "action", "srcset", "poster", "data"}:
                assert value, (element.tag, name)
                assert value.startswith(("data:", "#")), value[:80]
    without_pictures = re.sub(r"data:image/png;base64,[A-Za-z0-9+/=]*", "", page)
    assert not re.search(r"https?:|//\w|@import|url\((?!#)", without_pictures)
    policy = next(e for e in found(elements, "meta") if "http-equiv" in e.attributes)
    assert policy.attributes["content"].startswith("default-src 'none'; img-src data:; style-src 'unsafe-inline'")


def test_is_small(page):
    assert len(page) < 500_000


def test_same_report_gives_the_same_bytes(page):
    assert render_page(made_up_report()) == page


def test_headings_are_in_order_and_sections_have_names(elements):
    levels = [int(e.tag[1]) for e in elements if re.fullmatch(r"h\d", e.tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    headings = {e.attributes["id"] for e in found(elements, "h2")}
    assert [e.attributes["aria-labelledby"] for e in found(elements, "section")] == list(
        dict.fromkeys(e.attributes["id"] for e in found(elements, "h2"))
    )
    assert {e.attributes["href"] for e in elements if e.tag == "a"} == {f"#{name}" for name in headings} | {"#main"}


def test_landmarks_and_language(elements):
    for tag in ("header", "nav", "main", "footer", "title"):
        assert len(found(elements, tag)) == 1, tag
    assert found(elements, "html")[0].attributes["lang"] == "en"
    assert found(elements, "nav")[0].attributes["aria-label"] == "Contents"
    order = [e.attributes["id"] for e in found(elements, "h2")]
    assert order[0] == "recommendation"


def test_ids_are_unique_and_references_lead_somewhere(page, elements):
    ids = [e.attributes["id"] for e in elements if "id" in e.attributes]
    assert len(ids) == len(set(ids))
    named = [e.attributes[a] for e in elements for a in ("aria-labelledby", "aria-describedby") if a in e.attributes]
    named += [e.attributes["href"][1:] for e in elements if e.attributes.get("href", "").startswith("#")]
    named += re.findall(r"url\(#([^)]+)\)", page)
    assert named
    assert set(named) <= set(ids)


def test_pictures_have_words(elements):
    shown = [e for e in found(elements, "img") if e.attributes["alt"] != "to"]
    assert len(shown) == 4 + 3 * len(LOSSY) + 1 + len(LOSSY)
    for element in shown:
        assert len(element.attributes["alt"]) > 30
        assert int(element.attributes["width"]) > 0
        assert int(element.attributes["height"]) > 0
    # Each bar of colours stands between its two numbers: "0 to 66 counts".
    assert all(
        "scale" in e.parents[-1].attributes["class"] for e in found(elements, "img") if e.attributes["alt"] == "to"
    )
    plots = [e for e in found(elements, "svg") if e.attributes.get("class") == "plot"]
    assert len(plots) == 4 + len(LOSSY) + (1 + len(LOSSY))
    assert all(e.attributes["role"] == "img" and len(e.attributes["aria-label"]) > 30 for e in plots)
    rest = [e for e in found(elements, "svg") if e.attributes.get("class") != "plot"]
    assert all(e.attributes["aria-hidden"] == "true" for e in rest)


def test_tables_have_captions_and_heads_and_can_be_scrolled_by_keyboard(elements):
    tables = found(elements, "table")
    assert len(tables) == 3
    for one in tables:
        inside = [e for e in elements if one in e.parents]
        assert [e.tag for e in inside].count("caption") == 1
        assert all(e.attributes["scope"] in ("col", "row", "rowgroup") for e in inside if e.tag == "th")
        for row in (e for e in inside if e.tag == "tr" and "tbody" in e.above):
            assert any(e.tag == "th" and row in e.parents for e in inside)
        region = one.parents[-1]
        assert region.attributes["role"] == "region"
        assert region.attributes["tabindex"] == "0"
        assert region.attributes["aria-labelledby"] in {e.attributes.get("id") for e in inside}


def test_numbers_of_the_methods(elements):
    rows = [row for row in table(elements, "methods") if len(row) > 1]
    assert [row[1] for row in rows][:3] == ["learned", "pixel_histogram:mode=scan", "pixel_histogram"]
    size = 8 * (int(2.25 * VALUES / 8)) / VALUES
    third = rows[2]
    assert third[0] == "3"
    assert third[2] == f"{int(2.25 * VALUES / 8) / 1e3:.1f}"
    assert third[3] == f"{16 / size:.2f}"
    assert third[4:7] == ["2.25", "88", "210"]
    assert third[7] == "every value comes back"
    numbers = [int(row[0]) for row in rows]
    assert sorted(numbers) == list(range(1, 13))
    assert min(n for n, row in zip(numbers, rows, strict=True) if row[1].startswith(("poisson", "isqrt"))) == 9


def test_numbers_of_the_losses(elements):
    rows = {row[1]: row for row in table(elements, "losses") if len(row) > 1}
    assert list(rows) == ["poisson:r=1", "poisson:r=0.5", "poisson:r=0.25", "isqrt + Blosc zstd-9, r=0.5"]
    half = rows["poisson:r=0.5"]
    assert half[2:5] == ["0.500", "−0.00060", "0.200"]
    assert half[5] == f"{100 / 1.04:.2f}"
    assert half[9] == "1.33"


def test_similarity_that_is_nearly_1_is_not_written_as_1():
    whole = made_up_report(pictures=Pictures())
    values = (0.0195731, 0.9999999, 1.0, None)
    rows = [
        replace(row, loss=replace(row.loss, ssim_images=value))
        for row, value in zip(whole.rows[8:12], values, strict=True)
    ]
    shown = {
        row[1]: row[7] for row in table(elements_of(render_page(replace(whole, rows=rows))), "losses") if len(row) > 1
    }
    assert [shown[name] for name in LOSSY] == ["0.01957", "> 0.99999", "1.00000", "–"]


def test_resolution_in_pixels_where_their_size_is_not_known():
    whole = made_up_report()
    row = replace(whole.rows[8], loss=replace(whole.rows[8].loss, resolution=float("inf")))
    elements = elements_of(render_page(replace(whole, rows=[row, whole.rows[9]], resolution_unit="pixel")))
    assert "Resolution, pixel" in [e.text for e in found(elements, "th")]
    assert "∞" in [row[9] for row in table(elements, "losses") if len(row) > 1]
    assert "frequency, 1/pixel" in [e.text for e in found(elements, "text")]


def test_what_is_not_compared_is_listed_with_its_reason(elements):
    assert table(elements, "left-out") == [
        ["JPEG-XL", "not installed", "pip install 'stemcodecs[compare]'"],
        ["TERSE", "loses values", "(0, 3, 5, 8): 70001 is 4465"],
        ["SZ3", "failed", "out of memory"],
    ]


def test_recommendation_comes_first_and_shows_commands_as_such(elements):
    main = found(elements, "main")[0].text
    assert main.index("Smallest lossless") < main.index("37 hot pixels") < main.index("Size by method")
    shown = [e.text for e in found(elements, "code")]
    assert "stemcodecs compress 'scans/gold on carbon.h5' gold.zarr" in shown
    assert "stemcodecs compress --method poisson:r=0.5" in shown


def renamed(report, name):
    """A report in which every text that is not ours has a name in it."""

    def of(mapping):
        return {f"{key}{name}": value for key, value in mapping.items()}

    pictures = report.pictures
    named = ("virtual_images", "decoded", "errors", "reconstructions", "frc")
    advice = report.recommendation
    return replace(
        report,
        source=f"{report.source}{name}",
        dataset=f"{report.dataset}{name}",
        dims=[f"{dim}{name}" for dim in report.dims],
        dtype=f"{report.dtype}{name}",
        rows=[
            replace(row, name=f"{row.name}{name}", note=f"{row.note}{name}", guarantee=f"{row.guarantee}{name}")
            for row in report.rows
        ],
        recommendation=Recommendation(
            advice=[f"{text}{name}" for text in advice.advice], findings=[f"{text}{name}" for text in advice.findings]
        ),
        pictures=replace(pictures, **{field: of(getattr(pictures, field)) for field in named}),
        versions={f"{key}{name}": f"{value}{name}" for key, value in report.versions.items()},
        machine={f"{key}{name}": f"{value}{name}" for key, value in report.machine.items()},
        command=f"{report.command}{name}",
        date=f"{report.date}{name}",
        resolution_unit=name,
    )


def test_names_are_text_and_never_markup():
    plain, hostile = (elements_of(render_page(renamed(made_up_report(), name))) for name in ("name", HOSTILE))

    def skeleton(elements):
        """Elements and their attributes, but for those that let the words of names break."""
        return [(e.tag, sorted(e.attributes)) for e in elements if e.tag != "wbr" and "code" not in e.above]

    assert skeleton(hostile) == skeleton(plain)
    shown = [e.text for e in hostile if e.tag in ("th", "td", "li", "dd", "h1", "figcaption", "pre", "p", "dt")]
    assert sum(HOSTILE in text for text in shown) > 60
    assert any(HOSTILE in (e.attributes.get("alt") or "") for e in hostile)
    assert any(HOSTILE in (e.attributes.get("aria-label") or "") for e in hostile)
    assert any(e.text == f"frequency, 1/{HOSTILE}" for e in hostile if e.tag == "text")


def test_what_cannot_be_seen_in_a_name_is_shown():
    """A mark that turns the direction of writing makes one name look like another; U+0000 is not allowed in HTML."""
    page = render_page(made_up_report(source="scan\u202e5h.exe\x00\ud800.h5", pictures=Pictures()))
    assert "Compression of scan\\u202e5h.exe\\u0000\\ud800.h5" in [e.text for e in elements_of(page) if e.tag == "h1"]
    page.encode("utf-8")


def test_empty_report_says_what_is_missing():
    page = render_page(
        made_up_report(
            rows=[],
            recommendation=Recommendation(),
            pictures=Pictures(),
            versions={},
            machine={},
            command="",
            date="",
            seconds=0.0,
            dataset="",
            finished=False,
        )
    )
    elements = elements_of(page)
    text = found(elements, "body")[0].text
    for sentence in (
        "This comparison was interrupted. It shows the 0 methods that were done by then",
        "No recommendation was made.",
        "No method was done",
        "Speeds of fewer than two methods were measured",
        "No lossy method was measured",
        "No pictures of the data were made.",
        "Nothing was reconstructed",
    ):
        assert sentence in text
    assert not found(elements, "table")
    assert not found(elements, "img")


@pytest.mark.parametrize(
    "field", ["mean_pattern", "bits_map", "original", "decoded", "errors", "frc", "reconstructions"]
)
def test_each_picture_may_be_missing(field):
    whole = made_up_report()
    row = whole.rows[8]
    one = {name: {row.name: getattr(whole.pictures, name)[row.name]} for name in ("decoded", "errors", "frc")}
    report = replace(whole, rows=[row], pictures=replace(whole.pictures, **one))
    empty = getattr(Pictures(), field)
    elements = elements_of(render_page(replace(report, pictures=replace(report.pictures, **{field: empty}))))
    whole = elements_of(render_page(report))
    assert sum(e.tag in ("img", "svg") for e in elements) < sum(e.tag in ("img", "svg") for e in whole)


def test_finished_report_does_not_say_that_it_was_interrupted(page):
    assert "interrupted" not in page.lower()


def test_sample_is_stated_with_its_uncertainty():
    rows = [replace(row, bits_error=0.031) for row in made_up_report().rows]
    sample = Sample(positions=144, of_positions=14400, raw_bytes=2 * VALUES, of_bytes=200 * VALUES, blocks=4)
    elements = elements_of(render_page(made_up_report(sample=sample, rows=rows, pictures=Pictures())))
    header = found(elements, "header")[0].text
    assert "A sample was read: 144 of 14,400 patterns (1 %, 1.18 MB), in 4 whole chunks spread over the scan." in header
    third = [row for row in table(elements, "methods") if len(row) > 1][2]
    assert third[2] == f"{int(2.25 * VALUES / 8) * 100 / 1e6:.2f}"
    assert third[4] == "2.250 ± 0.031"
    assert "estimated from the sample" in next(e.text for e in found(elements, "caption"))


def test_movie_has_frames_and_curves():
    report = made_up_report(
        shape=(100, 64, 64),
        dims=("time", "y", "x"),
        pictures=Pictures(virtual_images={"sum_image": np.arange(100.0)}),
    )
    elements = elements_of(render_page(report))
    assert "All 144 frames were read." in found(elements, "header")[0].text
    plots = [e.attributes["aria-label"] for e in found(elements, "svg") if e.attributes.get("class") == "plot"]
    assert "Sum image of each frame: 100 values between 0 and 99 counts." in plots


def test_large_arrays_are_shown_small_and_the_page_says_so():
    rng = np.random.default_rng(0)
    large = rng.poisson(3.0, (1000, 1024)).astype("u2")
    report = made_up_report()
    pictures = Pictures(
        mean_pattern=large,
        bits_map=rng.random((1000, 1024)),
        virtual_images={f"image {i}": rng.random((700, 700)) for i in range(6)},
        original=large,
        decoded=dict.fromkeys(LOSSY, large + rng.normal(0, 1, large.shape)),
        reconstructions={name: rng.normal(0, 1, (900, 900)) for name in ("source", *LOSSY)},
    )
    page = render_page(replace(report, pictures=pictures))
    assert len(page) < 2_000_000
    text = found(elements_of(page), "main")[0].text
    assert re.search(r"1000 × 1024 pixels, each pixel shown is the mean of 5 × 5", text)
    assert re.search(r"rows \d+ to \d+ and columns \d+ to \d+ of 1000 × 1024, where most counts are", text)


def test_pictures_hold_the_values():
    """The picture of a small map: its darkest and brightest pixel are where they are in the map."""
    from PIL import Image

    values = np.arange(12.0).reshape(3, 4)
    page = render_page(made_up_report(pictures=Pictures(bits_map=values), rows=[]))
    image = next(e for e in elements_of(page) if e.tag == "img")
    assert "between 0 and 11 bits, mean 5.50; largest near row 2, column 3." in image.attributes["alt"]
    data = base64.b64decode(image.attributes["src"].partition(",")[2])
    with Image.open(io.BytesIO(data)) as png:
        pixels = np.asarray(png.convert("RGB")).astype(int).sum(axis=2)
    assert pixels.shape == (3, 4)
    assert np.unravel_index(pixels.argmin(), pixels.shape) == (0, 0)
    assert np.unravel_index(pixels.argmax(), pixels.shape) == (2, 3)


def test_what_is_not_a_number_is_shown_without_a_warning():
    nothing = np.full((8, 8), np.nan)
    pictures = Pictures(
        mean_pattern=nothing,
        bits_map=nothing,
        virtual_images={"sum_image": nothing},
        original=nothing,
        decoded=dict.fromkeys(LOSSY, nothing),
        reconstructions={"source": nothing, LOSSY[0]: nothing},
    )
    assert "between – and – counts" in render_page(made_up_report(pictures=pictures))


@pytest.mark.parametrize("package", ["jinja2", "matplotlib"])
def test_missing_package_is_one_line_that_says_how_to_install_it(package, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ConfigurationError, match=rf"^the page needs {package}; .*pip install 'stemcodecs\[compare\]'$"):
        render_page(made_up_report())


def test_page_takes_the_place_of_an_old_one_at_once(tmp_path, page):
    (tmp_path / "report.html").write_text("old")
    write_page(made_up_report(), tmp_path / "report.html")
    assert (tmp_path / "report.html").read_text(encoding="utf-8") == page
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]


def test_folder_that_is_not_there_is_one_line(tmp_path):
    with pytest.raises(DestinationError, match=r"report\.html: cannot be written \(No such file or directory\)"):
        write_page(made_up_report(), tmp_path / "missing" / "report.html")


def themes():
    """Variables of the style sheet, in light and in dark."""
    sheet = (files("stemcodecs_pipelines.compare.page") / "page.css").read_text(encoding="utf-8")
    light, dark = (
        dict(re.findall(r"--([\w-]+): (#\w{6});", part)) for part in sheet.split("prefers-color-scheme: dark")
    )
    return {"light": light, "dark": {**light, **dark}}


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_colours_are_far_enough_from_what_is_behind_them(theme):
    rgb = {name: tuple(bytes.fromhex(value[1:])) for name, value in themes()[theme].items()}
    for text, paper in (("ink", "paper"), ("ink", "shade"), ("ink", "notice"), ("muted", "paper"), ("accent", "paper")):
        assert contrast(rgb[text], rgb[paper]) >= 4.5, (text, paper)
    # Lines and marks that mean something: 3 is what WCAG asks of them.
    for line in ("other", "focus"):
        assert contrast(rgb[line], rgb["paper"]) >= 3, line


def test_no_colour_of_matplotlib_is_left(page):
    """What is drawn in a fixed colour would be lost in one of the themes."""
    plots = re.findall(r'<svg class="plot".*?</svg>', page, re.DOTALL)
    assert len(plots) == 4 + len(LOSSY) + (1 + len(LOSSY))
    for plot in plots:
        assert not re.findall(r"#[0-9a-fA-F]{6}\b", plot)
        assert "font-family" not in plot
        assert "DejaVu" not in plot
