"""tuneloop's loop and the 150 plain lines of examples/plain_loop.py have the same losses: nothing is hidden in ours."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from toy import conversations, tune_in

from tuneloop.core.conversation import Message
from tuneloop.track import metrics

PLAIN = Path(__file__).resolve().parents[2] / "examples" / "plain_loop.py"


def plain_loop() -> Any:
    spec = importlib.util.spec_from_file_location("plain_loop", PLAIN)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("name", "method"), [("llama", "lora"), ("llama", "full"), ("qwen3", "lora"), ("mistral", "full")]
)
def test_the_same_losses(name: str, method: str, model_folder: Callable[..., Path], tmp_path: Path) -> None:
    examples = conversations(18)
    examples[4] = examples[4].with_messages((Message("system", "请简短回答。"), *examples[4].messages))
    data = tmp_path / "chats.jsonl"
    data.write_text(
        "".join(json.dumps({"messages": [m.to_json() for m in one.messages]}) + "\n" for one in examples), "utf-8"
    )
    plain = plain_loop().main([
        "--model", str(model_folder(name)), "--data", str(data), "--out", str(tmp_path / "out"), "--method", method,
        "--rank", "4", "--alpha", "8", "--epochs", "2", "--batch-size", "4", "--micro-batch", "3",
        "--learning-rate", "3e-3", "--warmup", "0.2", "--seed", "7",
    ])  # fmt: skip
    run, _ = tune_in(
        tmp_path, {"base": str(model_folder(name))}, train=examples, seed=7, epochs=2, steps=None, batch_size=4,
        learning_rate=3e-3, schedule={"cosine": {"warmup": 0.2}}, memory={"token_budget": 100},
        method={"lora": {"rank": 4, "alpha": 8}} if method == "lora" else "full",
    )  # fmt: skip
    ours = [row["loss"] for row in metrics.read(run.path / "metrics.jsonl")]
    assert len(ours) == 10 and ours[-1] < ours[0]
    assert ours == pytest.approx(plain, rel=1e-5)
    assert (tmp_path / "out" / "chat_template.jinja").is_file()
