"""The one way from a conversation to token ids and loss weights, for training, evaluation and serving alike.

What you see is what is trained: the ids before an answer are those that generation starts from, token for token.
Knows nothing of models, batches or files.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tuneloop.core import digest
from tuneloop.core.conversation import Example, JsonObject, Message
from tuneloop.render import decide
from tuneloop.render import overlong as policies
from tuneloop.render.answers import AnswerReader, AnswerStream
from tuneloop.render.borders import Encoded, Encoder
from tuneloop.render.chat import ChatTemplate, learn, to_template
from tuneloop.render.rendered import Rendered, Unrenderable
from tuneloop.render.turns import Asked, Passage, Turn, asked, check, passages, prose, read_turns, supervised

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from transformers import PreTrainedTokenizerBase

__all__ = ["Overlong", "Rendered", "Renderer", "Unrenderable"]

Overlong = Literal["reject", "drop_turns", "truncate"]
HERE = Path(__file__).parent
Planned = list[Passage] | Unrenderable


class Renderer:
    """A tokenizer with its chat template, unmodified.

    decisions   what was decided for the user, one sentence each; rendering may add to them
    stop_ids    the tokens that generation waits for
    pad_id      for batches; positions are masked by length, so it may be the same as a stop token
    Raises ModelError for a tokenizer or a template that cannot chat exactly.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        *,
        stop_ids: Iterable[int] = (),
        variables: Mapping[str, Any] | None = None,
    ) -> None:
        """`stop_ids`: further ones, of the generation config; `variables` of the template, e.g. enable_thinking."""
        self.tokenizer = tokenizer
        self._encoder = Encoder(tokenizer)
        eos = tokenizer.eos_token
        source = None if tokenizer.chat_template else decide.chatml(tokenizer)
        self.template = ChatTemplate(tokenizer, source, variables or {})
        self.habits = learn(self.template, eos if isinstance(eos, str) else None)
        stops = [decide.single(self._encoder, stop) for stop in self.habits.stops]
        self._document_end = decide.document_end(tokenizer)
        self._before_prose = decide.before_prose(tokenizer)
        ends = [] if self._document_end is None else [self._document_end]
        self.stop_ids: frozenset[int] = frozenset([*stops, *ends, *stop_ids])
        self.pad_id: int = decide.padding(tokenizer, stops[0])
        self.decisions: list[str] = decide.said(self.template, self.habits)
        self._reader = AnswerReader(tokenizer, self.habits, self.stop_ids)

    @property
    def chat_template(self) -> str | dict[str, str]:
        """The template to save with a model, so that other engines prompt it in the same way."""
        return self.template.source or self.tokenizer.chat_template

    def digest(self) -> str:
        """Of all that rendering follows from beside its options: tokenizer, template, this code, its libraries."""
        import jinja2
        import tokenizers
        import transformers

        backend: Any = self.tokenizer.backend_tokenizer
        return digest.of_value({
            "tokenizer": digest.of_bytes(backend.to_str().encode()),
            "special": self.tokenizer.special_tokens_map,
            "template": self.chat_template,
            "variables": dict(self.template.variables),
            "code": digest.of_files(HERE, (path for path in HERE.iterdir() if path.is_file())),
            "libraries": [library.__version__ for library in (jinja2, tokenizers, transformers)],
        })  # fmt: skip

    # -- one conversation ---------------------------------------------------------------------------------------------
    def render(
        self, example: Example, *, max_length: int | None = None, overlong: Overlong = "reject"
    ) -> list[Rendered]:
        """The training sequences of an Example; several only where the template rewrites earlier turns.

        Each supervised turn is a target once, after exactly `prompt()` of what came before it. Longer than
        `max_length` tokens: "reject" raises; "drop_turns" leaves out whole question-and-answer groups of the middle,
        oldest first, keeping system messages, the first group as long as it fits, and the turn itself; turns that
        are left out of one sequence get their own; "truncate" cuts the end, answer or not.
        Raises Unrenderable.
        """
        (found,) = self.plan([example])
        if isinstance(found, Unrenderable):
            raise found
        return self.finish(example, found, self.encode([found])[0], max_length, overlong)

    def prompt(self, messages: Sequence[Message], tools: Sequence[JsonObject] = ()) -> list[int]:
        """The ids that generation starts from: the chat up to the assistant's turn, or the prose itself."""
        if messages and all(message.role == "text" for message in messages):
            return [*self._before_prose, *self._encoder.ids("".join(message.content for message in messages))]
        _refuse_mixed(messages)
        check(messages, tools, self.habits)
        chat = [to_template(message, self.habits) for message in messages]
        return self._encoder.ids(self.template.text(chat, tools, prompt=True))

    def answer_text(self, ids: Iterable[int]) -> str:
        """The answer in generated ids: up to the first stop token, without special tokens and without reasoning."""
        return self._reader.read(ids)[1]

    def answer_parts(self, ids: Iterable[int]) -> tuple[str | None, str]:
        """Reasoning (None where there is none) and answer in generated ids, up to the first stop token."""
        return self._reader.read(ids)

    def answer_stream(self, keep: Collection[str] = ()) -> AnswerStream:
        """For an answer that comes in pieces of text: reasoning and answer, of special tokens those in `keep` alone."""
        return self._reader.stream(keep)

    # -- the way, for one conversation and for many (many.py) ---------------------------------------------------------
    def plan(self, examples: Sequence[Example]) -> list[Planned]:
        """The passages of each Example, or why it has none: texts, not yet tokens."""
        wanted = [self._wanted(example) for example in examples]
        turns = iter(self._read([one for found in wanted if isinstance(found, list) for one in found]))
        out: list[Planned] = []
        for found in wanted:
            if not isinstance(found, list):
                out.append([found] if isinstance(found, Passage) else found)
                continue
            read = list(islice(turns, len(found)))
            refused = next((turn for turn in read if isinstance(turn, Unrenderable)), None)
            out.append(refused or passages(turn for turn in read if isinstance(turn, Turn)))
        return out

    def _wanted(self, example: Example) -> list[Asked] | Passage | Unrenderable:
        """The turns to read, or the passage that prose is, or why there is neither."""
        messages = example.messages
        try:
            targets = supervised(messages)
            if all(message.role == "text" for message in messages):
                return prose(messages)
            _refuse_mixed(messages)
            check(messages, example.tools, self.habits)
            if self.habits.thinking is None and any(message.reasoning is not None for message in messages):
                self._decide(decide.FOLDED)
            return asked(messages, example.tools, self.habits, targets)
        except Unrenderable as error:
            return error.with_traceback(None)  # it would hold all frames, and in them itself

    def _read(self, wanted: Sequence[Asked]) -> list[Turn | Unrenderable]:
        found = read_turns(self.template, self.habits, wanted)
        if self.template.differed:
            self._decide(decide.NOT_FOLLOWED)
        return found

    def _decide(self, decision: str) -> None:
        if decision not in self.decisions:
            self.decisions.append(decision)

    def encode(self, planned: Sequence[Planned]) -> list[list[Encoded]]:
        """The tokens of the passages that `plan` found, all at once; none for an Example that has no passages."""
        counts = [0 if isinstance(found, Unrenderable) else len(found) for found in planned]
        texts = [passage.text for found in planned if not isinstance(found, Unrenderable) for passage in found]
        encoded = iter(self._encoder.encode(texts))
        return [list(islice(encoded, count)) for count in counts]

    def finish(
        self, example: Example, found: list[Passage], texts: list[Encoded], max_length: int | None, overlong: Overlong
    ) -> list[Rendered]:
        """From passages and their tokens to rows within `max_length`; raises Unrenderable as `render` does."""
        out: list[Rendered] = []
        for passage, encoded in zip(found, texts, strict=True):
            out += [Rendered(ids, weights, example.id) for ids, weights, _ in self._weigh(example, passage, encoded)]
        longest = max(map(len, out))
        if max_length is not None and longest > max_length:
            if overlong == "reject" or (overlong == "drop_turns" and found[0].prose):
                raise policies.too_long(longest, max_length)
            if overlong == "truncate":
                out = [policies.truncate(rendered, max_length) for rendered in out]
            else:
                out = self._drop_turns(example, max_length)
        if not all(rendered.supervised for rendered in out):
            raise Unrenderable("no token would be trained on", {"tokens": longest, "max_length": max_length})
        return out

    def _drop_turns(self, example: Example, max_length: int) -> list[Rendered]:
        def encode(kept: Sequence[int], targets: Sequence[int]) -> tuple[Passage, Encoded]:
            turns: list[Turn] = []
            for turn in self._read(asked([example.messages[i] for i in kept], example.tools, self.habits, targets)):
                if isinstance(turn, Unrenderable):
                    raise turn
                turns.append(turn)
            passage = passages(turns)[-1]
            return passage, self._encoder.encode([passage.text])[0]

        out: list[Rendered] = []
        left = set(supervised(example.messages))
        while left:
            last = max(left)
            kept = policies.fit(
                example.messages[: last + 1], max_length, lambda kept: len(encode(kept, [len(kept) - 1])[1].ids)
            )
            targets = [place for place, index in enumerate(kept) if index in left]
            # the last part is the one that ends with the last turn; turns that it cannot hold wait for their own
            ids, weights, covered = self._weigh(example, *encode(kept, targets))[-1]
            out.append(Rendered(ids, weights, example.id, left_out_messages=last + 1 - len(kept)))
            left -= {kept[place] for place in covered}
        return out[::-1]

    def _weigh(
        self, example: Example, passage: Passage, encoded: Encoded
    ) -> list[tuple[NDArray[np.int32], NDArray[np.float32], list[int]]]:
        """Ids [T], weights [T] and covered turns of a passage; turns without an exact border get their own sequence."""
        import numpy as np

        last = passage.turns[-1]
        start = self._encoder.border(encoded, len(last.prompt))
        if start is None:
            encoded = self._encoder.join(last.prompt, last.answer)
            start = encoded.places.token_at(len(last.prompt))
        weights = np.zeros(len(encoded.ids), np.float32)
        weights[start:] = last.weight
        covered, alone = [last.index], []
        for turn in passage.turns[:-1]:
            begin = len(turn.prompt)
            first = encoded.places.token_at(begin) if passage.prose else self._encoder.border(encoded, begin)
            if first is None:
                alone += self._weigh(example, Passage(turn.text, (turn,)), self._encoder.encode([turn.text])[0])
            else:
                weights[first : min(start, encoded.places.token_at(begin + len(turn.answer)))] = turn.weight
                covered.append(turn.index)
        ids = encoded.ids
        if passage.prose:
            ids, weights = self._frame_prose(example, ids, weights)
        weights[:1] = 0.0  # nothing stands before the first token that could predict it
        return [*alone, (ids, weights, covered)]

    def _frame_prose(
        self, example: Example, ids: NDArray[np.int32], weights: NDArray[np.float32]
    ) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """Adds the bos that the tokenizer wants and, for a whole document, its end; a probe's answer is no end."""
        import numpy as np

        whole = len(example.messages) == 1 and self._document_end is not None
        after = [self._document_end] if whole else []
        return (
            np.concatenate([np.asarray(self._before_prose, np.int32), ids, np.asarray(after, np.int32)]),
            np.concatenate([np.zeros(len(self._before_prose), np.float32), weights,
                            np.full(len(after), example.messages[0].weight, np.float32)]),
        )  # fmt: skip


def _refuse_mixed(messages: Sequence[Message]) -> None:
    if not messages:
        raise Unrenderable("the conversation is empty")
    if any(message.role == "text" for message in messages):
        roles = [message.role for message in messages]
        raise Unrenderable("prose (role text) and chat messages cannot stand in one conversation", {"roles": roles})
