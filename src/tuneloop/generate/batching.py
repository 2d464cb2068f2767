"""Continuous batching: one worker owns the model, and answers join and leave between its steps.

Prompts that begin like one that was answered by the same model and adapter go on from what it left (prefixes.py).
Shapes: B rows at work, V vocabulary.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from tuneloop.core import digest
from tuneloop.core.errors import ModelError
from tuneloop.forward import attention
from tuneloop.generate import exact, slots
from tuneloop.generate.intake import Intake
from tuneloop.generate.live import Ask, Busy, Load, Piece, Served
from tuneloop.generate.next_tokens import advance, guess
from tuneloop.generate.padded import Padded
from tuneloop.generate.prefixes import PrefixCache
from tuneloop.generate.prompts import Prompts
from tuneloop.generate.queue import Limits
from tuneloop.generate.rows import Row
from tuneloop.generate.slots import Parts, Slots
from tuneloop.models.cache import adapter_digest
from tuneloop.models.fit import available_memory
from tuneloop.models.mixed import MixedAdapters
from tuneloop.track import console

if TYPE_CHECKING:
    from tuneloop.models.find import Base
    from tuneloop.render.template import Renderer

JOIN_TOKENS = 1_024
"""Prompt tokens that may join between two steps, so that answers under way do not stand still for long."""
READ_TOKENS = 256
"""Tokens of a long prompt that are read between two steps of others."""
PASS = 16
"""Tokens of a pass up to which guesses are added to it: a CPU computes few rows nearly as fast as one."""
MEMORY, REMEMBERED = 0.4, 0.1
"""Shares of the free memory for the keys and values of rows at work, and of prompts that were answered."""


@dataclass(eq=False)
class Reading:
    """An answer of whose prompt the first tokens are known, by their keys and values; the others will be read."""

    row: Row
    parts: Parts

    @property
    def known(self) -> int:
        return len(self.parts[0]) if self.parts else 0

    @property
    def missing(self) -> int:
        return len(self.row.prompt) - self.known


class ContinuousEngine:
    """A LiveEngine by a transformers model in this process, with LoRA adapters beside one another."""

    def __init__(
        self,
        load: Callable[[], PreTrainedModel],
        renderer: Renderer,
        base: Base,
        name: str,
        limits: Limits | None = None,
        facts: Mapping[str, Any] | None = None,
    ) -> None:
        """`load` is called by the worker; what it raises is raised here. It may fill `facts`, which then are told of
        what is served; the scheme of a model in fewer bits among them, `quantize`, counts in the digests.

        Where a thread of more has ever computed with torch, OpenMP counts its helpers, finds more threads than cores
        and lets all of them sleep between two operations: a step of a small model takes half as long again.
        """
        self.renderer, self.limits = renderer, limits or Limits()
        self._name, self._base, self._facts = name, base, {} if facts is None else facts
        self._served: dict[str, Served] = {}
        self._leaving: dict[str, Future[None]] = {}
        self._rows: list[Row] = []
        self._reading: list[Reading] = []
        self._tokens, self._rate = 0, 0.0
        self._changes: list[tuple[Callable[[], Any], Future[Any]]] = []
        self._change = threading.Condition()
        self._closed = self._woken = False
        ready: Future[None] = Future()
        self._worker = threading.Thread(target=self._work, args=(load, ready), name="tuneloop-model", daemon=True)
        self._worker.start()
        ready.result()

    # -- from any thread ----------------------------------------------------------------------------------------------
    def submit(self, ask: Ask, told: Callable[[Piece], None]) -> Row:
        """As LiveEngine.submit."""
        row = Row(ask, told, self._wake, time.monotonic() + (float("inf") if ask.timeout is None else ask.timeout))
        with self._change:
            if self._closed:
                raise ModelError("the server is shutting down")
            if ask.model not in self._served or ask.model in self._leaving:
                raise ModelError(f"no model '{ask.model}' here; there are: {', '.join(self._served)}")
            if len(self._waiting) >= self.limits.waiting:
                raise Busy(f"{len(self._waiting)} answers are waiting already", self._seconds_until_room())
            self._waiting.put(row)
        return row

    def models(self) -> list[Served]:
        """As LiveEngine.models."""
        with self._change:
            return [served for name, served in self._served.items() if name not in self._leaving]

    def load(self, name: str, adapter: str) -> Served:
        """As LiveEngine.load; `adapter` is a folder. Raises ModelError where the name is taken or it does not fit."""
        return self._asked(lambda: self._load(name, Path(adapter))).result()

    def unload(self, name: str) -> None:
        """As LiveEngine.unload. Raises ModelError for the base itself or an unknown name."""
        gone: Future[None] = Future()
        with self._change:
            if name == self._name or name not in self._served:
                raise ModelError(f"'{name}' is no loaded adapter")
            gone = self._leaving.setdefault(name, gone)
            self._change.notify_all()
        gone.result()

    def now(self) -> Load:
        """As LiveEngine.now."""
        with self._change:
            return Load(len(self._everyone()), len(self._waiting), self._tokens)

    def close(self) -> None:
        """As LiveEngine.close."""
        with self._change:
            self._closed = True
            self._change.notify_all()
        self._worker.join()
        self._waiting.close()
        for row in self._waiting.take_out(lambda row: True):
            row.end("cancelled")

    def _wake(self) -> None:
        with self._change:
            self._woken = True
            self._change.notify_all()

    def _seconds_until_room(self) -> float:
        ahead = sum(row.ask.decoding.max_new_tokens for row in self._waiting)
        return min(60.0, max(1.0, ahead / self._rate if self._rate else 1.0))

    def _asked(self, change: Callable[[], Any]) -> Future[Any]:
        """A change of the model, made by the worker between two steps."""
        found: Future[Any] = Future()
        with self._change:
            if self._closed:
                raise ModelError("the server is shutting down")
            self._changes.append((change, found))
            self._change.notify_all()
        return found

    # -- the worker ---------------------------------------------------------------------------------------------------
    def _work(self, load: Callable[[], PreTrainedModel], ready: Future[None]) -> None:
        with torch.inference_mode():
            try:
                self._begin(load())
            except Exception as error:  # noqa: BLE001 - raised again where the engine is made
                ready.set_exception(error)
                return
            ready.set_result(None)
            packed = isinstance(self._form, Slots)
            with slots.attending(self.core) if packed else attention.standard(self.core):
                while self._wait():
                    try:
                        self._admit()
                        if self._reading:
                            self._read(self._reading[0])
                        if self._rows:
                            self._step()
                    except Exception as error:  # noqa: BLE001 - said to those who asked; the worker goes on
                        self._failed(error)
        for row in self._everyone():
            row.end("cancelled")

    def _everyone(self) -> list[Row]:
        """All answers under way, those whose prompts are being read at the end."""
        return [*self._rows, *(reading.row for reading in self._reading)]

    def _begin(self, model: PreTrainedModel) -> None:
        self.core = model
        self.context: int | None = getattr(model.config.get_text_config(), "max_position_embeddings", None)
        scheme = [self._facts["quantize"]] if self._facts else []
        self._digest = digest.of_value([self._base.digest, self.renderer.digest(), str(model.dtype), *scheme])
        self._mixed = MixedAdapters(model, self._base)
        self._served[self._name] = Served(self._name, self._digest, self.context, facts=self._facts)
        self._form, self._capacity = self._made()
        if isinstance(self._form, Slots) and (why := self._form.uncompiled()):
            console.decided("answers", f"steps by PyTorch's own operations, half as long again as compiled ones: {why}")
        head = model.get_output_embeddings()
        assert head is not None
        self._waiting = Intake(Prompts(self.renderer, self.context, head.weight.shape[0]).ready, self._change)

    def _made(self) -> tuple[Slots | Padded, float]:
        """How rows are computed, and how many tokens of them fit into memory."""
        self._known = PrefixCache(int(REMEMBERED * available_memory(str(self.core.device))))
        words = self.renderer.tokenizer.encode("The quick brown fox 快速的棕色狐狸 0123", add_special_tokens=False)
        a_token = exact.bytes_a_token(self.core, None, 0, [words, words[2:]])
        if a_token is None:
            longest = self.context or 1 << 20
            return Padded(self.core, None, 0, self.limits.seats, longest), float("inf")
        memory = MEMORY * available_memory(str(self.core.device))
        return Slots(self.core, None, 0, self.limits.seats), memory / a_token

    def _wait(self) -> bool:
        """Until there is something to do; makes changes and lets go of what was given up. False: the end."""
        with self._change:
            while not (
                self._closed or self._woken or self._changes or self._everyone() or self._waiting.next or self._unused()
            ):
                self._change.wait()
            changes, self._changes, self._woken = self._changes, [], False
            now = time.monotonic()
            gone = self._waiting.take_out(lambda row: row.over(now) is not None)
        for row in gone:
            row.end(row.over(now) or "cancelled")
        over = {row: finish for row in self._everyone() if (finish := row.over(now))}
        if over:
            self._leave(over)
        for change, found in changes:
            try:
                found.set_result(change())
            except Exception as error:  # noqa: BLE001 - raised again where it was asked for
                found.set_exception(error)
        self._let_go()
        return not self._closed

    def _load(self, name: str, folder: Path) -> Served:
        if name in self._served:
            raise ModelError(f"'{name}' is loaded already; load other weights under another name")
        try:
            self._mixed.add(name, folder)
        except ModelError:
            self._mixed.remove(name)
            raise
        found = adapter_digest(folder)
        served = Served(name, digest.of_value([self._digest, found]), self.context, found, self._facts)
        with self._change:
            self._served[name] = served
        return served

    def _unused(self) -> list[str]:
        """Adapters that are to be freed and that no answer needs any more."""
        if not self._leaving:
            return []
        used = {row.ask.model for row in [*self._everyone(), *self._waiting]}
        return [name for name in self._leaving if name not in used]

    def _let_go(self) -> None:
        """Frees adapters that nobody uses any more."""
        with self._change:
            gone = {name: self._leaving[name] for name in self._unused()}
            served = {name: self._served.pop(name) for name in gone}
            for name in gone:
                del self._leaving[name]
        for name, told in gone.items():
            self._mixed.remove(name)
            self._known.forget(served[name].digest)
            told.set_result(None)

    def _admit(self) -> None:
        """Lets those who wait join, as far as there are seats and memory, and those whose prompts are read so far."""
        for row in self._chosen():
            row.cached, parts = self._known.find(self._digest_of(row), row.prompt)
            self._reading.append(Reading(row, parts))
        # apart by adapters: what rows of one have in common others must not share
        groups: dict[tuple[str, bool], list[Reading]] = {}
        for reading in self._reading:
            if not isinstance(self._form, Slots) or reading.missing <= READ_TOKENS:
                groups.setdefault((reading.row.ask.model, bool(reading.parts)), []).append(reading)
        for (name, begun), readings in groups.items():
            rows = [reading.row for reading in readings]
            self._reading = [reading for reading in self._reading if reading not in readings]
            self._rows += rows
            with self._mixed.routed(self._whole(name)):
                if begun and isinstance(self._form, Slots):
                    logits_BV = self._form.resume([(one.row.prompt[one.known :], one.parts) for one in readings])
                else:
                    logits_BV = self._form.join([row.prompt for row in rows])
                self._advance(rows, logits_BV)

    def _read(self, reading: Reading) -> None:
        """Some more of a long prompt, so that answers under way do not stand still until all of it is read.

        What is read is remembered at once: the next prompt in line may begin alike.
        """
        row, model = reading.row, self._digest_of(reading.row)
        found, parts = self._known.find(model, row.prompt)
        if found > reading.known:
            row.cached += found - reading.known
            reading.parts = parts
        if reading.missing <= READ_TOKENS:
            return
        known, until = reading.known, reading.known + READ_TOKENS
        apart = Slots(self.core, None, 0, 1)
        with self._mixed.routed(self._whole(row.ask.model)):
            if known:
                apart.resume([(row.prompt[known:until], reading.parts)])
            else:
                apart.join([row.prompt[:until]])
        reading.parts = apart.parts(0)
        self._known.add(model, row.prompt[:until], reading.parts)

    def _chosen(self) -> list[Row]:
        """Who joins now, in turns of the users."""
        found: list[Row] = []
        while len(self._everyone()) + len(found) < self.limits.seats:
            with self._change:
                row = self._waiting.next
                if row is None or ((self._everyone() or found) and not self._may_join(row, found)):
                    break
                self._waiting.pop()
            found.append(row)
        return found

    def _may_join(self, row: Row, others: Sequence[Row]) -> bool:
        """Whether there is memory for a row beside all others, and time to compute its prompt between two steps."""
        if isinstance(self._form, Padded):  # which has no place for a row that comes later
            return not self._rows and row.ask.model == others[0].ask.model
        everyone = [*self._everyone(), *others, row]
        longest = max(len(one.prompt) + one.room for one in everyone)
        tokens = sum(len(one.prompt) for one in (*others, row))
        return longest * len(everyone) <= self._capacity and (not others or tokens <= JOIN_TOKENS)

    def _step(self) -> None:
        started, before, form = time.monotonic(), self._tokens, self._form
        guessed = guess(self._rows, PASS) if isinstance(form, Slots) else [[]] * len(self._rows)
        new = [[row.new[-1], *more] for row, more in zip(self._rows, guessed, strict=True)]
        with self._mixed.routed(self._routes(list(map(len, new)))):
            if isinstance(form, Slots) and any(guessed):
                logits_TV = form.several(new)
            else:
                logits_TV = form.step([tokens[0] for tokens in new])
            self._advance(self._rows, logits_TV, guessed)
        rate = (self._tokens - before) / max(1e-6, time.monotonic() - started)
        self._rate = rate if not self._rate else 0.9 * self._rate + 0.1 * rate

    def _whole(self, name: str) -> dict[str, Tensor | None]:
        return {} if name == self._name else {name: None}

    def _routes(self, counts: Sequence[int]) -> dict[str, Tensor | None]:
        """Adapter → its tokens, so many of each row; None where all tokens are its own."""
        names = [row.ask.model for row, count in zip(self._rows, counts, strict=True) for _ in range(count)]
        if len(set(names)) == 1:
            return self._whole(names[0])
        return {
            name: torch.tensor([place for place, other in enumerate(names) if other == name], device=self.core.device)
            for name in dict.fromkeys(names)
            if name != self._name
        }

    def _digest_of(self, row: Row) -> str:
        return self._served[row.ask.model].digest

    def _advance(self, rows: Sequence[Row], logits_TV: Tensor, guessed: Sequence[list[int]] | None = None) -> None:
        """Every row's next tokens, and what is said because of them; rows that are finished leave."""
        rows, guessed = list(rows), guessed or [[]] * len(rows)
        taken = advance(rows, guessed, logits_TV.float(), self.renderer)
        self._tokens += sum(count for count, _ in taken)
        if isinstance(self._form, Slots) and any(guessed):
            self._form.shorten([1 + len(more) - count for more, (count, _) in zip(guessed, taken, strict=True)])
        ended = {row: finish for row, (_, finish) in zip(rows, taken, strict=True) if finish is not None}
        if ended:
            self._leave(ended)

    # -- ends ---------------------------------------------------------------------------------------------------------
    def _leave(self, ended: dict[Row, Any]) -> None:
        """Rows leave: what they computed is remembered, and whoever asked is told."""
        for place, row in enumerate(self._rows):
            if row in ended and row.new and isinstance(self._form, Slots):
                computed = [*row.prompt, *row.new][: int(self._form.lengths_B[place])]
                self._known.add(self._digest_of(row), computed, self._form.parts(place))
        order = self._form.keep([place for place, row in enumerate(self._rows) if row not in ended])
        self._rows = [self._rows[place] for place in order]
        self._reading = [reading for reading in self._reading if reading.row not in ended]
        for row, finish in ended.items():
            row.end(finish)

    def _failed(self, error: Exception) -> None:
        """A fault in a pass: those at work are told, and the form begins anew."""
        rows, self._rows, self._reading = self._everyone(), [], []
        self._form, self._capacity = self._made()
        for row in rows:
            row.end("error", f"{type(error).__name__}: {error}")
