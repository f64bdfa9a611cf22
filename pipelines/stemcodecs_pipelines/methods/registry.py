"""The methods by name. A room is loaded when its method is asked for, and never loads the registry."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from stemcodecs.errors import ConfigurationError
from stemcodecs_pipelines.methods.base import Method
from stemcodecs_pipelines.methods.options import read_options

__all__ = ["METHODS", "method_class", "parse_method"]

METHODS = {
    "pixel_histogram": "stemcodecs_pipelines.histograms.method:PixelHistogramMethod",
    "learned": "stemcodecs_pipelines.learned.method:LearnedMethod",
    "poisson": "stemcodecs_pipelines.poisson.method:PoissonMethod",
    "pca": "stemcodecs_pipelines.pca.method:PcaMethod",
    "tcs": "stemcodecs_pipelines.temporal.method:TcsMethod",
}
"""Where the class of each method is, as ``module:class``."""


def method_class(name: str) -> type[Method[Any]]:
    """Class of a method; ``-`` counts as ``_``.

    Raises
    ------
    ConfigurationError
        No such method.
    """
    place = METHODS.get(name.replace("-", "_"))
    if place is None:
        raise ConfigurationError(f"no method {name!r}; there is: {', '.join(METHODS)}")
    module, _, attribute = place.partition(":")
    found: type[Method[Any]] = getattr(import_module(module), attribute)
    return found


def parse_method(text: str) -> Method[Any]:
    """Read ``name`` or ``name:key=value,key=value``.

    Raises
    ------
    ConfigurationError
        No such method, an option is unknown or its value not allowed, or the text is not of this form.
    """
    name, colon, tail = text.partition(":")
    kind = method_class(name)
    # The store notes what was asked for, to the letter; only the spelling of the name is ours.
    return kind(read_options(kind.Options, kind.name, tail), f"{kind.name}{colon}{tail}")
