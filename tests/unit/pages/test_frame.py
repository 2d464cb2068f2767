from __future__ import annotations

import re
from pathlib import Path

import pytest

import tuneloop
from tuneloop.pages.charts import COLOURS

ROOT = Path(tuneloop.__file__).parent
FRAME = (ROOT / "pages" / "base.html.jinja").read_text("utf-8")
PAGES = sorted(path for path in ROOT.rglob("*.html.jinja") if path.name != "base.html.jinja" and path.name[0] != "_")


def test_there_are_pages() -> None:
    assert {"report.html.jinja", "card.html.jinja"} <= {path.name for path in PAGES}


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_the_palette_is_defined_for_every_use(page: Path) -> None:
    light, dark = FRAME.split("prefers-color-scheme: dark", 1)
    used = set(re.findall(r"var\((--[a-z-]+)\)", FRAME + page.read_text("utf-8"))) - {"--c"}
    for name in used:
        assert f"{name}:" in light and f"{name}:" in dark.split("} }")[0], name


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_a_page_stands_in_the_frame(page: Path) -> None:
    assert page.read_text("utf-8").startswith('{% extends "base.html.jinja" %}')


def test_every_part_has_a_colour() -> None:
    assert all(f".c{part} {{" in FRAME for part in range(1, COLOURS + 1))
