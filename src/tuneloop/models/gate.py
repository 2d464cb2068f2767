"""The gate of every import: a model is taken in only after it has answered a question."""

from __future__ import annotations

from pathlib import Path

import torch

from tuneloop.core.errors import ModelError

QUESTION = "What is the capital of France?"


def answer(folder: Path, question: str = QUESTION, max_new_tokens: int = 24) -> str:
    """The greedy answer of the model in `folder`, by its chat template where it has one.

    Raises ModelError when its logits are not finite or it says nothing.
    """
    from tuneloop.models.load import model_from
    from tuneloop.models.precision import pick_dtype
    from tuneloop.models.tokenizer import tokenizer_from

    tokenizer = tokenizer_from(folder)
    model = model_from(folder, pick_dtype("auto", "cpu")[0])
    prompt = question
    if tokenizer.chat_template:
        chat = [{"role": "user", "content": question}]
        prompt = str(tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=False))
    ids_1T = torch.tensor([tokenizer(prompt, add_special_tokens=not tokenizer.chat_template)["input_ids"]])
    with torch.inference_mode():
        if not bool(torch.isfinite(model(input_ids=ids_1T).logits).all()):
            raise ModelError(f"{folder}: the model computes numbers that are not finite; its weights are broken")
        out_1T = model.generate(  # pyright: ignore[reportCallIssue]
            input_ids=ids_1T, attention_mask=torch.ones_like(ids_1T), max_new_tokens=max_new_tokens, do_sample=False
        )
    text = str(tokenizer.decode(out_1T[0, ids_1T.shape[1] :], skip_special_tokens=True)).strip()
    if not text:
        raise ModelError(f"{folder}: asked '{question}', the model says nothing; its weights or tokenizer are broken")
    return text


def check(folder: Path, question: str | None, expected: str | None) -> str:
    """The answer, which must contain `expected` where that is given. Raises ModelError otherwise."""
    text = answer(folder, question or QUESTION)
    if expected is not None and expected not in text:
        raise ModelError(
            f"{folder}: asked '{question}', the model says {text!r} instead of '{expected}': import refused"
        )
    return text
