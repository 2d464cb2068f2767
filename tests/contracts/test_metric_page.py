"""docs/metrics.md says what the metrics say of themselves."""

from __future__ import annotations

from pathlib import Path

from metric_pages import written

PAGE = Path(__file__).resolve().parents[2] / "docs" / "metrics.md"


def test_the_page_is_up_to_date() -> None:
    page = PAGE.read_text("utf-8")
    assert page == written(page), "run: python tests/metric_pages.py docs/metrics.md"
