"""What is learnt, per tokenizer, as text that a person can review: `masks/<tokenizer>.json`.

After a wanted change: python tests/golden/test_masks.py, then read the difference.
"""

import json
from pathlib import Path

import pytest

from tuneloop.core import digest
from tuneloop.core.conversation import Example, Message, Origin, ToolCall
from tuneloop.render.preview import preview_rows, runs
from tuneloop.render.template import Renderer

HERE = Path(__file__).parent / "masks"
TOKENIZERS = Path(__file__).resolve().parents[2] / "../shared/tokenizers"
NAMES = ("gpt2", "qwen2.5", "qwen3", "llama-3.1")
TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "查询天气 / look up the weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
U, A, S = "user", "assistant", "system"
CALL = ToolCall("weather", {"city": "北京"})
CASES = {
    "one turn": ([Message(U, "2+2?"), Message(A, "4")], ()),
    "zh": ([Message(U, "法国的首都是哪里？"), Message(A, "巴黎。🙂")], ()),
    "system and two turns": (
        [
            Message(S, "Be brief."),
            Message(U, "Hi"),
            Message(A, "Hello!\n\n- one"),
            Message(U, "你好"),
            Message(A, "你好！"),
        ],
        (),
    ),
    "weights": ([Message(U, "a"), Message(A, "b", train=0.0), Message(U, "c"), Message(A, "d", train=0.5)], ()),
    "reasoning in two turns": (
        [
            Message(U, "2+2?"),
            Message(A, "4", reasoning="two and two"),
            Message(U, "+1?"),
            Message(A, "5", reasoning="4+1"),
        ],
        (),
    ),
    "tools": (
        [
            Message(U, "北京天气？"),
            Message(A, "", tool_calls=(CALL,)),
            Message("tool", '{"sky": "晴"}'),
            Message(A, "晴天。"),
        ],
        (TOOL,),
    ),
    "answer begins with a line break": ([Message(U, "code"), Message(A, "\n\n    x = 1")], ()),
    "document": ([Message("text", "Paris is the capital. 北京是首都。", train=1.0)], ()),
    "probe": ([Message("text", "The capital of France is", train=0.0), Message("text", " Paris", train=1.0)], ()),
}


def observe(name: str) -> dict:
    from transformers import AutoTokenizer

    renderer = Renderer(AutoTokenizer.from_pretrained(TOKENIZERS / name))
    words = renderer.tokenizer.convert_ids_to_tokens
    cases = {}
    for case, (messages, tools) in CASES.items():
        rows = preview_rows(renderer, [Example(tuple(messages), Origin("golden", 0), tools=tools)], 1)
        cases[case] = [
            row.problem or {"tokens": len(row.ids), "ids": digest.short(digest.of_value(list(row.ids))),
                            "text": [[weight, text] for weight, text in runs(row)]}
            for row in rows
        ]  # fmt: skip
    return {
        "stop": sorted(words(sorted(renderer.stop_ids))),
        "pad": words(renderer.pad_id),
        "decisions": renderer.decisions,
        "cases": cases,
    }


@pytest.mark.parametrize("name", NAMES)
def test_masks_are_as_reviewed(name):
    if not (TOKENIZERS / name).is_dir():
        pytest.skip(f"no tokenizer {name} beside the checkout")
    assert observe(name) == json.loads((HERE / f"{name}.json").read_text("utf-8"))


if __name__ == "__main__":
    HERE.mkdir(exist_ok=True)
    for each in NAMES:
        (HERE / f"{each}.json").write_text(json.dumps(observe(each), ensure_ascii=False, indent=1) + "\n", "utf-8")
