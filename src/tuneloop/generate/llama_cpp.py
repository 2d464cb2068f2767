"""A LiveEngine by llama.cpp in this process, for .gguf files: one answer at a time, its start kept for the next turn.

Only the arithmetic is llama.cpp's. Prompts, choice of tokens, schemas and texts are ours: the bindings would render a
file's chat template themselves, which has been a way in for code (CVE-2024-34359).
"""

from __future__ import annotations

import ctypes
import os
import threading
import time
from collections.abc import Callable, Sequence
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from tuneloop.core import digest
from tuneloop.core.errors import MissingExtra, ModelError
from tuneloop.generate.live import Ask, Busy, Load, Served
from tuneloop.generate.next_tokens import next_tokens
from tuneloop.generate.prompts import Prompts
from tuneloop.generate.queue import FairQueue
from tuneloop.generate.rows import Row
from tuneloop.models.cache import file_digest
from tuneloop.models.fit import available_memory

if TYPE_CHECKING:
    from tuneloop.render.template import Renderer

BATCH = 512
"""Prompt tokens that are computed before somebody may give up."""
MEMORY = 0.4
"""Share of the free memory that keys and values may take."""


class LlamaCppEngine:
    """Answers by the model in a .gguf file; `renderer` is of the same file. Raises ModelError, or MissingExtra.

    `context`: tokens of prompt and answer together; default: all that the model was trained for and memory allows.
    """

    def __init__(
        self, path: Path, renderer: Renderer, name: str, *, context: int | None = None, waiting: int = 256
    ) -> None:
        self._model = _Model(path, context)
        try:
            self._model.check_vocabulary(renderer)
        except ModelError:
            self._model.close()
            raise
        self.renderer, self._limit = renderer, waiting
        parts = [file_digest(path), renderer.digest(), "llama.cpp"]
        self._served = Served(name, digest.of_value(parts), self._model.context)
        self._prompts = Prompts(renderer, self._model.context, self._model.vocabulary)
        self._waiting: FairQueue[Row] = FairQueue()
        self._row: Row | None = None
        self._tokens, self._closed = 0, False
        self._change = threading.Condition()
        self._worker = threading.Thread(target=self._work, name="llama.cpp", daemon=True)
        self._worker.start()

    # -- from any thread ----------------------------------------------------------------------------------------------
    def submit(self, ask: Ask, told: Callable[..., None]) -> Row:
        """As LiveEngine.submit."""
        row = Row(ask, told, self._wake, time.monotonic() + (float("inf") if ask.timeout is None else ask.timeout))
        with self._change:
            if self._closed:
                raise ModelError("the server is shutting down")
            if ask.model != self._served.name:
                raise ModelError(f"no model '{ask.model}' here; there is: {self._served.name}")
            if len(self._waiting) >= self._limit:
                raise Busy(f"{len(self._waiting)} answers are waiting already", retry_after=1.0)
            self._waiting.put(ask.user, row)
            self._change.notify()
        return row

    def models(self) -> list[Served]:
        """As LiveEngine.models."""
        return [self._served]

    def load(self, name: str, adapter: str) -> Served:
        """Refuses: llama.cpp does not read adapters of this form."""
        raise ModelError(
            f"adapter {adapter}: a .gguf file is served alone. Merge the run (`tuneloop merge RUN --out model`), "
            "convert the merged model to GGUF, and serve that; or serve the run without llama.cpp"
        )

    def unload(self, name: str) -> None:
        """Refuses, as `load`."""
        raise ModelError(f"'{name}' is no loaded adapter")

    def now(self) -> Load:
        """As LiveEngine.now."""
        with self._change:
            return Load(int(self._row is not None), len(self._waiting), self._tokens)

    def close(self) -> None:
        """As LiveEngine.close."""
        with self._change:
            self._closed = True
            self._change.notify()
        self._worker.join()

    def _wake(self) -> None:
        with self._change:
            self._change.notify()

    # -- the worker ---------------------------------------------------------------------------------------------------
    def _work(self) -> None:
        with torch.inference_mode():
            while (row := self._next()) is not None:
                try:
                    self._answer(row)
                except Exception as error:  # noqa: BLE001 - said to whoever asked; the worker goes on
                    self._model.forget()
                    row.end("error", f"{type(error).__name__}: {error}")
                with self._change:
                    self._row = None
        for row in self._waiting.take_out(lambda row: True):
            row.end("cancelled")
        self._model.close()

    def _next(self) -> Row | None:
        """Whose turn it is; None at the end."""
        while True:
            self._let_go()
            with self._change:
                if self._closed:
                    return None
                if len(self._waiting):
                    self._row = self._waiting.pop()
                    return self._row
                self._change.wait()

    def _let_go(self) -> None:
        """Tells those who wait no longer; called between any two tokens."""
        if not len(self._waiting):
            return
        now = time.monotonic()
        with self._change:
            gone = self._waiting.take_out(lambda row: row.over(now) is not None)
        for row in gone:
            row.end(row.over(now) or "cancelled")

    def _answer(self, row: Row) -> None:
        if not self._prompts.ready(row):
            return
        row.cached = self._model.begin(row.prompt)
        rest, finish = row.prompt[row.cached :], None
        while finish is None:
            logits_V = self._model.feed(rest[:BATCH])
            rest = rest[BATCH:]
            self._let_go()
            finish = "cancelled" if self._closed else row.over(time.monotonic())
            if rest or finish is not None:
                continue
            (token,) = next_tokens([row], logits_V[None], self.renderer)
            finish, rest = row.take(token, self.renderer.stop_ids), [token]
            self._tokens += 1
        row.end(finish)


@cache
def _library() -> Any:
    """llama.cpp's functions, made silent. Once: C keeps the address of the silencer, which must live as long."""
    try:
        library: Any = import_module("llama_cpp")  # this file has the same name
    except ImportError as error:
        raise MissingExtra("llama-cpp-python", "serve.engine: llama_cpp", "llama-cpp") from error
    silent = library.llama_log_callback(lambda level, text, data: None)
    library.llama_log_set(silent, ctypes.c_void_p(0))
    library.llama_backend_init()
    library.silent = silent
    return library


class _Model:
    """A model and its memory of one sequence, by llama.cpp's own functions; for one thread at a time."""

    def __init__(self, path: Path, context: int | None) -> None:
        library = self._library = _library()
        self._model = library.llama_model_load_from_file(str(path).encode(), library.llama_model_default_params())
        if not self._model:
            raise ModelError(f"{path}: llama.cpp cannot load this file")
        self._vocabulary = library.llama_model_get_vocab(self._model)
        self.vocabulary: int = library.llama_vocab_n_tokens(self._vocabulary)
        trained: int = library.llama_model_n_ctx_train(self._model)
        self.context = min(trained, context or trained, self._affordable())
        settings = library.llama_context_default_params()
        settings.n_ctx, settings.n_batch, settings.n_ubatch = self.context, BATCH, BATCH
        settings.n_threads = settings.n_threads_batch = len(os.sched_getaffinity(0))
        self._context = library.llama_init_from_model(self._model, settings)
        if not self._context:
            raise ModelError(f"{path}: llama.cpp cannot make room for {self.context} tokens")
        self._memory = library.llama_get_memory(self._context)
        self._known: list[int] = []

    def check_vocabulary(self, renderer: Renderer) -> None:
        """Raises ModelError unless token ids mean here what they mean to the renderer."""
        tokenizer = renderer.tokenizer
        texts = tokenizer.convert_ids_to_tokens(list(range(min(len(tokenizer), self.vocabulary))))
        other = [
            token for token, text in enumerate(texts)
            if self._library.llama_vocab_get_text(self._vocabulary, token).decode("utf-8", "replace") != text
        ]  # fmt: skip
        if other or len(tokenizer) > self.vocabulary:
            which = f"token {other[0]} is another" if other else f"{len(tokenizer)} tokens, not {self.vocabulary}"
            raise ModelError(f"the tokenizer is not that of the .gguf file: {which}")

    def begin(self, prompt: Sequence[int]) -> int:
        """Goes back to where the prompt departs from what is in memory; how many of its tokens are there. The last one
        never is: its logits are wanted."""
        same = 0
        for known, wanted in zip(self._known, prompt[:-1], strict=False):
            if known != wanted:
                break
            same += 1
        if not self._library.llama_memory_seq_rm(self._memory, 0, same, -1):
            self.forget()  # a state that cannot go back (state-space models)
            return 0
        del self._known[same:]
        return same

    def feed(self, tokens: Sequence[int]) -> Tensor:
        """Goes on by these tokens, at most BATCH; logits [V] after the last, float32, a copy."""
        given = (self._library.llama_token * len(tokens))(*tokens)
        failed = self._library.llama_decode(self._context, self._library.llama_batch_get_one(given, len(tokens)))
        if failed:
            raise ModelError(f"llama.cpp failed with {failed} after {len(self._known)} tokens")
        self._known += tokens
        logits = self._library.llama_get_logits_ith(self._context, -1)
        return torch.from_numpy(np.ctypeslib.as_array(logits, (self.vocabulary,)).copy())

    def forget(self) -> None:
        """Nothing is in memory any more."""
        self._library.llama_memory_clear(self._memory, True)
        self._known = []

    def close(self) -> None:
        """Frees all of it."""
        self._library.llama_free(self._context)
        self._library.llama_model_free(self._model)

    def _affordable(self) -> int:
        """Tokens whose keys and values, in fp16, fit into memory."""
        count = self._library
        width = count.llama_model_n_embd(self._model) // max(1, count.llama_model_n_head(self._model))
        a_token = 4 * count.llama_model_n_layer(self._model) * count.llama_model_n_head_kv(self._model) * width
        return max(BATCH, int(MEMORY * available_memory("cpu")) // max(1, a_token))
