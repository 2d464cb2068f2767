"""docs/steps.md: the table is complete, and its examples work as they stand, as an installed package."""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from stepping import decide, run

from tuneloop.core.conversation import Example, Message, Origin
from tuneloop.data.steps import STEPS

PAGE = (Path(__file__).resolve().parents[3] / "docs/steps.md").read_text("utf-8")
BLOCKS = dict(re.findall(r"^```\w+ (\S+)\n(.*?)^```", PAGE, flags=re.DOTALL | re.MULTILINE))


def test_the_table_has_every_step_with_its_options() -> None:
    rows = re.findall(r"^\| `(\w+)` \| .* \|(.*)\|$", PAGE.split("# Steps that look")[0], flags=re.MULTILINE)
    listed = {name: set(re.findall(r"`(\w+)`", options)) for name, options in rows}
    assert listed == {name: set(STEPS.load(name).model_fields) for name in STEPS.names()}


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page's package, as pip would leave it."""
    for name, text in BLOCKS.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, "utf-8")
    points = tomllib.loads(BLOCKS["pyproject.toml"])["project"]["entry-points"]["tuneloop.steps"]
    info = tmp_path / "our_steps-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: our-steps\nVersion: 1.0\n")
    lines = [f"{name} = {place}" for name, place in points.items()]
    (info / "entry_points.txt").write_text("\n".join(["[tuneloop.steps]", *lines]))
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(STEPS, "_loaded", {})
    yield
    for name in [name for name in sys.modules if name.partition(".")[0] == "our_steps"]:
        del sys.modules[name]


def example(answer: str, row: int, **meta: Any) -> Example:
    return Example((Message("user", "Hi"), Message("assistant", answer)), Origin("s", row), meta=meta)


@pytest.mark.usefixtures("installed")
def test_the_steps_of_the_page_work() -> None:
    assert {"no_signature", "per_author"} <= set(STEPS.names())
    rows = [example("Done. Kind regards, your support team", 0), example("Kind regards, your support team", 1),
            example("Kind regards, both", 2)]  # fmt: skip
    kept, gone = run([STEPS.make("no_signature")], rows)
    assert [one.answer.content for one in kept] == ["Done.", "Kind regards, both"]
    assert [one.origin.row for one, _ in gone] == [1]
    written = [example("a", row, **({"author": "Wang"} if row % 2 else {})) for row in range(8)]
    verdict = decide(STEPS.make({"per_author": {"most": 2}}), written)
    assert sorted(verdict.rejected) == [5, 7]
    assert verdict.findings[0]["count"] == 2
