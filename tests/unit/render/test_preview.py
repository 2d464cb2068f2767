"""The preview shows what training takes, in every form."""

import json

import made_tokenizers as made
import pytest
from rich.console import Console

from tuneloop.core.conversation import Example, Message, Origin
from tuneloop.render import preview
from tuneloop.render.template import Renderer

RENDERER = Renderer(made.make("chatml"))


def example(row: int, *messages: Message) -> Example:
    return Example(messages, Origin("a", row))


U, A = "user", "assistant"
EXAMPLES = [
    example(0, Message(U, "法国的首都？ <b>\t👩🏽\u200d🔬"), Message(A, "巴黎。🙂\nParis & more")),
    example(1, Message(U, "a"), Message(A, "b", train=0.25), Message(U, "c"), Message(A, "d")),
    example(2, Message(U, "nobody answers")),
    example(3, Message(U, "not asked for"), Message(A, "x")),
]


@pytest.mark.parametrize("metaspace", [False, True])
def test_rows_are_the_rendered_sequences(metaspace):
    renderer = Renderer(made.make("chatml", metaspace=metaspace))
    rows = preview.preview_rows(renderer, EXAMPLES, 3)
    assert [row.id for row in rows] == [given.id for given in EXAMPLES[:3]]
    for row, given in zip(rows[:2], EXAMPLES, strict=False):
        (one,) = renderer.render(given)
        assert list(row.ids) == one.ids.tolist() and list(row.weights) == one.weights.tolist()
        assert len(row.tokens) == len(row.ids)
        assert "".join(row.tokens) == renderer.tokenizer.decode(one.ids, clean_up_tokenization_spaces=False)
        assert "�" not in "".join(row.tokens)
    assert rows[2].problem is not None and rows[2].ids == ()


def test_json_has_the_promised_shape():
    value = json.loads(json.dumps(preview.to_json(preview.preview_rows(RENDERER, EXAMPLES, 3))))
    assert set(value) == {"rows"} and len(value["rows"]) == 3
    assert set(value["rows"][0]) == {"id", "ids", "tokens", "weights"}
    assert "no message is trained on" in value["rows"][2]["problem"]


def test_runs_join_neighbours_of_one_weight():
    row = preview.preview_rows(RENDERER, EXAMPLES[1:], 1)[0]
    assert [(weight, text) for weight, text in preview.runs(row) if weight] == [
        (0.25, "b<|im_end|>"),
        (1.0, "d<|im_end|>"),
    ]


def test_terminal_shows_text_weights_and_whitespace():
    console = Console(width=200, force_terminal=False, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(preview.to_rich(preview.preview_rows(RENDERER, EXAMPLES, 3)))
    text = console.export_text()
    assert "巴黎。🙂↵" in text and "Paris·&·more<|im_end|>" in text and "×0.25" in text
    assert "weight 0" in text and "no message is trained on" in text and "not asked for" not in text


def test_page_is_self_contained_and_escaped():
    page = preview.to_html(preview.preview_rows(RENDERER, EXAMPLES, 3))
    assert "<b>" not in page.split("</h1>")[1] and "&lt;" in page
    assert "prefers-color-scheme:dark" in page and "http" not in page and "<script" not in page
    assert 'class="scaled' in page and "weight 0.25" in page and "巴" in page and "not asked for" not in page
