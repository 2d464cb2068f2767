"""What is decided for a tokenizer that leaves it open: a template, padding, the ends of documents; and saying so."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tuneloop.core.errors import ModelError
from tuneloop.render.borders import Encoder
from tuneloop.render.chat import ChatTemplate, Habits

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

DOCUMENT_ENDS = ("<|end_of_text|>", "<|endoftext|>")


def chatml(tokenizer: PreTrainedTokenizerBase) -> str:
    """ChatML as a template for a tokenizer that has none.

    Its end marker must be one token that generation can wait for. Where the tokenizer does not know <|im_end|>
    (GPT-2), the markers are ordinary text and an assistant turn ends with the tokenizer's own end token.
    """
    if not _has_markers(tokenizer) and not tokenizer.eos_token:
        raise ModelError("the tokenizer has neither a chat template nor an end token: set `eos_token` in it")
    stop = "'<|im_end|>'" if _has_markers(tokenizer) else "eos_token"
    return f"{{%- set stop = {stop} %}}\n" + Path(__file__).with_name("chatml.jinja").read_text("utf-8")


def _has_markers(tokenizer: PreTrainedTokenizerBase) -> bool:
    added = {token.content for token in tokenizer.added_tokens_decoder.values()}
    return {"<|im_start|>", "<|im_end|>"} <= added


def single(encoder: Encoder, stop: str) -> int:
    """The id of an end token. Raises ModelError when it is several tokens."""
    ids = encoder.ids(stop)
    if len(ids) != 1:
        raise ModelError(f"the end token {stop!r} is {len(ids)} tokens here; generation cannot wait for it")
    return ids[0]


def document_end(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """What ends a pre-training document: not the end of a chat turn where the tokenizer tells the two apart."""
    known = tokenizer.get_vocab()
    eos = tokenizer.eos_token_id
    return next((known[word] for word in DOCUMENT_ENDS if word in known), eos if isinstance(eos, int) else None)


def padding(tokenizer: PreTrainedTokenizerBase, stop: int) -> int:
    """The id that pads batches: the tokenizer's own, or a stop token, which length masks keep apart."""
    pad = tokenizer.pad_token_id
    return pad if isinstance(pad, int) else stop


def before_prose(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """What the tokenizer puts before a text by itself: its bos, or nothing."""
    bos = tokenizer.bos_token_id
    return [bos] if isinstance(bos, int) and tokenizer("a")["input_ids"][:1] == [bos] else []


NOT_FOLLOWED = "following the chat template gave another text than running it: it is run for every row, which is slower"
FOLDED = "the template has no place for reasoning: a row's reasoning stands before its answer in <think>"


def said(template: ChatTemplate, habits: Habits) -> list[str]:
    """The decisions, one sentence each."""
    tokenizer, stop = template.tokenizer, habits.stops[0]
    out: list[str] = []
    if template.source is not None:
        how = f", its markers as ordinary text; {stop} ends an assistant turn, as one token"
        out.append(f"the tokenizer has no chat template: ChatML is used{'' if _has_markers(tokenizer) else how}")
    if tokenizer.pad_token_id is None:
        out.append(f"the tokenizer has no pad token: {stop} pads; padding is masked by length, {stop} is still learnt")
    if habits.tail.strip():
        out.append(f"the template ends answers with {habits.tail.strip()!r}, no single token: {stop} takes its place")
    elif not habits.ends:
        out.append(f"the template does not end answers with a token: {stop} is added and learnt")
    if habits.opening.strip():
        out.append(f"the template writes {habits.opening!r} before answers, not in prompts: it is learnt with them")
    if habits.unwritten:
        out.append(f"the template's prompts end in {habits.unwritten!r}: answers are learnt from there on")
    if "strftime_now" in str(tokenizer.chat_template):
        out.append("the template asks for today's date: it is given 26 July 2024, in training and in serving")
    return out
