"""Shades stand for values, and no label can break out of the picture."""

from __future__ import annotations

import re

from tuneloop.pages.heat import heat


def test_a_square_a_value_shaded_by_its_share() -> None:
    picture = str(heat([("layer 0", [0.0, 1.5]), ("<b>", [3.0, 9.0])], "expert", full=3.0))
    assert [float(shade) for shade in re.findall(r'fill-opacity="([\d.]+)"', picture)] == [0.0, 0.5, 1.0, 1.0]
    assert "<title>layer 0, expert 1: 1.5</title>" in picture
    assert "<b>" not in picture and "&lt;b&gt;" in picture


def test_many_experts_stay_within_the_picture() -> None:
    picture = str(heat([("layer", [1.0] * 512)], "expert", full=3.0))
    width = float(re.findall(r'viewBox="0 0 ([\d.]+)', picture)[0])
    assert max(float(x) for x in re.findall(r'<rect class="c1" x="([\d.]+)"', picture)) < width
