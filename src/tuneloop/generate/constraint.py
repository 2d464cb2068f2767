"""Answers that follow a JSON Schema: which tokens may come next, by llguidance. Knows nothing of requests."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor

from tuneloop.core.errors import ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

ANY_OBJECT = {"type": "object"}
OPTIONS = "x-guidance"
"""A key of a schema by which llguidance is told how to read it."""


class Grammars:
    """Compiled schemas of one tokenizer."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, vocabulary: int, stop_ids: Iterable[int]) -> None:
        """`vocabulary`: the width of the model's logits, which may be more than the tokenizer has tokens."""
        import llguidance.hf

        self._vocabulary = vocabulary
        self._tokenizer = llguidance.hf.from_tokenizer(
            cast("Any", tokenizer), n_vocab=vocabulary, eos_token=sorted(stop_ids)
        )
        self._grammar = lru_cache(maxsize=64)(self._compiled)

    def start(self, schema: Mapping[str, Any]) -> Constraint:
        """The state of a new answer. Raises ModelError for a schema that llguidance does not take, with its words."""
        import llguidance

        grammar = self._grammar(json.dumps(schema or ANY_OBJECT))  # in its own order, which is that of the answer
        made = Constraint(llguidance.LLMatcher(self._tokenizer, grammar, log_level=0), self._vocabulary)
        made.mask()  # the first may take a second, which here costs others nothing
        if made.trouble is not None:
            raise ModelError(made.trouble)
        return made

    def _compiled(self, schema: str) -> str:
        import llguidance

        value = json.loads(schema)
        if OPTIONS in value:  # `lenient` would have keywords ignored
            raise ModelError(f"this JSON Schema cannot be followed: '{OPTIONS}' is not for those who ask")
        value[OPTIONS] = {"whitespace_flexible": False}  # else models fill answers with blanks
        try:
            grammar = llguidance.LLMatcher.grammar_from_json_schema(value)
        except ValueError as error:
            raise ModelError(f"this JSON Schema cannot be followed: {error}") from error
        problem = llguidance.LLMatcher.validate_grammar(grammar, self._tokenizer)
        if problem:
            raise ModelError(f"this JSON Schema cannot be followed: {problem}")
        return grammar


class Constraint:
    """Where one answer stands in its grammar."""

    def __init__(self, matcher: Any, vocabulary: int) -> None:
        self._matcher = matcher
        self._bits = np.zeros((1, (vocabulary + 31) // 32), np.int32)
        self._vocabulary = vocabulary

    def mask(self) -> Tensor:
        """[V]: True for the tokens that may come next; stop tokens only where the answer may end."""
        import llguidance.numpy

        llguidance.numpy.fill_next_token_bitmask(self._matcher, self._bits)
        bits = np.unpackbits(self._bits.view(np.uint8), bitorder="little")[: self._vocabulary]
        return torch.from_numpy(bits.astype(bool))

    def take(self, token: int) -> None:
        """The answer goes on with a token that the mask allowed."""
        self._matcher.consume_token(token)

    @property
    def trouble(self) -> str | None:
        """Why llguidance gives the schema up, half way through an answer at times; None where it does not."""
        if not self._matcher.is_error():
            return None
        return f"this JSON Schema is too much to follow: {self._matcher.get_error().partition(chr(10))[0]}"

    @property
    def ended(self) -> bool:
        """Whether nothing but the end may come."""
        return bool(self._matcher.is_stopped())
