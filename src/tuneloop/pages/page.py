"""A page from a room's own template inside the common frame (base.html.jinja); all values are escaped."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from tuneloop.pages.numbers import count, interval, number, share

if TYPE_CHECKING:
    from jinja2 import Environment


def render(package: str, template: str, **values: Any) -> str:
    """The template of a package, which may extend `base.html.jinja`; a name that no value has is an error."""
    return _environment(package).get_template(template).render(values)


@cache  # it keeps what it compiled: a run writes its page of curves again and again
def _environment(package: str) -> Environment:
    from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=ChoiceLoader([PackageLoader(package, "."), PackageLoader("tuneloop.pages", ".")]),
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters.update(number=number, interval=interval, share=share, count=count)
    return environment
