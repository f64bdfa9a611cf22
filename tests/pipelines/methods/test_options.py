"""Options declared once are read, refused and described from the same fields."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import pytest

from stemcodecs.errors import ConfigurationError
from stemcodecs_pipelines.methods.base import Exact, option
from stemcodecs_pipelines.methods.options import options_of, read_options, split_options


@dataclass(frozen=True, kw_only=True)
class Options:
    kind: Literal["plain", "fancy"] = option("plain", "kind of it")
    size: int | Literal["auto"] = option("auto", "how large", least=1, flag="--size")
    bound: float = option(0.5, "bound", above=0, most=64)
    gain: Exact | None = option(None, "gain", otherwise="1")
    quick: bool = option(False, "in a hurry")


def read(text):
    return read_options(Options, "it", text)


def test_values_have_the_types_of_their_fields():
    assert read("") == Options()
    assert read("kind=fancy,size=3,bound=2,gain=0.1,quick=true") == Options(
        kind="fancy", size=3, bound=2.0, gain=Exact("0.1"), quick=True
    )
    assert read("size=4,size=auto").size == "auto"
    assert read("gain=1/3").gain == "1/3"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("kind=none", "kind 'none' must be plain or fancy"),
        ("size=0", "size '0' must be a whole number of at least 1, or auto"),
        ("size=1.5", "size '1.5' must be a whole number of at least 1, or auto"),
        ("bound=nan", "bound 'nan' must be a number above 0, at most 64"),
        ("bound=65", "bound '65' must be a number above 0, at most 64"),
        ("gain=1/0", "gain '1/0' must be a number, such as 0.5 or 1/3"),
        ("quick=2", "quick '2' must be true or false"),
        ("colour=red", "it has no option 'colour'; it has: kind, size, bound, gain, quick"),
        ("kind", "cannot read the method option 'kind'"),
        ("=3", "cannot read the method option '=3'"),
    ],
)
def test_what_is_not_allowed_is_refused_with_what_is(text, message):
    with pytest.raises(ConfigurationError) as error:
        read(text)
    assert str(error.value).startswith(message)


def test_options_describe_themselves():
    described = {known.name: (known.values, known.default_text, known.flag) for known in options_of(Options)}
    assert described == {
        "kind": ("plain or fancy", "plain", None),
        "size": ("a whole number of at least 1, or auto", "auto", "--size"),
        "bound": ("a number above 0, at most 64", "0.5", None),
        "gain": ("a number, such as 0.5 or 1/3", "1", None),
        "quick": ("true or false", "False", None),
    }


def test_empty_parts_do_not_count():
    assert split_options(",a=1,,b=2=3,") == {"a": "1", "b": "2=3"}
