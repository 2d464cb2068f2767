"""What a model says may not steer the terminal."""

from __future__ import annotations

from tuneloop.flows.chat import _printable


def test_control_characters_of_an_answer_are_not_printed() -> None:
    assert _printable("\x1b[31mred\x07\x1b]0;title\x07 ok\r\n\t中文\u0085") == "[31mred]0;title ok\n\t中文"
