"""A LiveEngine whose answers come from an OpenAI-compatible server by HTTP, as streams, many at once.

That server renders prompts by its own chat template. An event loop in one thread asks it; in front of it users take
turns. Adapters are loaded into vLLM and SGLang; the others have no way to load one while they run.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from contextlib import aclosing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import orjson

from tuneloop.core import digest
from tuneloop.core.errors import ModelError
from tuneloop.generate import dialects, wire
from tuneloop.generate.config import Dialect, UpstreamConfig
from tuneloop.generate.endpoint import Broken, Endpoint, Missing, NotThere, Refused, Unreachable, address
from tuneloop.generate.live import Ask, Busy, Finish, Load, Piece, Served, Usage
from tuneloop.generate.queue import FairQueue
from tuneloop.models.cache import ADAPTER, adapter_digest

T = TypeVar("T")
PROBE = 2.0
"""Seconds between two looks whether a server that was lost is there again."""


@dataclass(eq=False)
class _Answer:
    """An answer that waits or is under way; also the ticket of whoever asked."""

    ask: Ask
    told: Callable[[Piece], None]
    give_up: Callable[[_Answer], None]
    turn: asyncio.Event
    task: asyncio.Task[Piece] | None = None
    cancelled: bool = False
    begun: bool = False
    """Whether something of it was told."""
    usage: Usage = wire.NOTHING

    def cancel(self) -> None:
        self.cancelled = True
        self.give_up(self)


class UpstreamEngine:
    """Asks the server at `url`. Raises ModelError where it cannot be reached or does not have the model."""

    def __init__(self, url: str, config: UpstreamConfig | None = None) -> None:
        self.url, self._config = address(url), config or UpstreamConfig()
        self._change = threading.Condition()
        self._waiting: FairQueue[_Answer] = FairQueue()
        self._answers: set[_Answer] = set()
        self._running, self._tokens, self._closed = 0, 0, False
        self._loop = asyncio.new_event_loop()
        self._worker = threading.Thread(target=self._loop.run_forever, name="upstream", daemon=True)
        self._worker.start()
        try:
            self._endpoint, base = self._wait(self._opened())
        except BaseException:
            self._stop()
            raise
        self._base, self._context = base.name, base.context
        self._served = {base.name: base}
        self._leaving: set[str] = set()
        self._folders: dict[str, Path] = {}
        self._away: str | None = None
        self._looked = asyncio.Event()
        """Set as soon as it was looked whether a server that was lost is there again."""
        self._watching: asyncio.Task[None] | None = None

    # -- from any thread ----------------------------------------------------------------------------------------------
    def submit(self, ask: Ask, told: Callable[[Piece], None]) -> _Answer:
        """As LiveEngine.submit."""
        answer = _Answer(ask, told, self._give_up, asyncio.Event())
        with self._change:
            if self._closed:
                raise ModelError("the server is shutting down")
            if ask.model not in self._served or ask.model in self._leaving:
                raise ModelError(f"no model '{ask.model}' here; there are: {', '.join(self._served)}")
            if len(self._waiting) >= self._config.waiting:
                raise Busy(f"{len(self._waiting)} answers are waiting already", retry_after=1.0)
            self._waiting.put(ask.user, answer)
            self._answers.add(answer)
            self._loop.call_soon_threadsafe(self._begin, answer)
        return answer

    def models(self) -> list[Served]:
        """As LiveEngine.models."""
        with self._change:
            return [served for name, served in self._served.items() if name not in self._leaving]

    def load(self, name: str, adapter: str) -> Served:
        """As LiveEngine.load; the server must find the folder under the same path. One that it has by this name
        already is taken as it is: names are made of contents."""
        folder = Path(adapter).resolve()
        self._verbs(f"adapter {adapter}")
        missing = [file for file in ADAPTER[:2] if not (folder / file).is_file()]
        if missing:
            raise ModelError(f"{adapter} is no adapter that can be served: it has no {missing[0]}")
        with self._change:
            if name in self._served:
                raise ModelError(f"'{name}' is loaded already; load other weights under another name")
        self._wait(self._put(name, folder))
        base, found = self._served[self._base], adapter_digest(folder)
        served = Served(name, digest.of_value([base.digest, found]), base.context, found)
        with self._change:
            self._served[name], self._folders[name] = served, folder
        return served

    def unload(self, name: str) -> None:
        """As LiveEngine.unload. Answers are counted here: servers take adapters away from answers under way."""
        with self._change:
            if name == self._base or name not in self._served:
                raise ModelError(f"'{name}' is no loaded adapter")
            self._leaving.add(name)
            self._change.wait_for(lambda: not any(answer.ask.model == name for answer in self._answers))
        verbs = self._verbs(name)
        try:
            self._wait(self._order(verbs, verbs.unload, {"lora_name": name}))
        finally:
            with self._change:
                self._leaving.discard(name)
                del self._served[name], self._folders[name]

    def now(self) -> Load:
        """As LiveEngine.now."""
        with self._change:
            return Load(self._running, len(self._waiting), self._tokens, away=self._away)

    def close(self) -> None:
        """As LiveEngine.close. Adapters stay in the server, under names that stand for their content."""
        with self._change:
            if self._closed:
                return
            self._closed = True
            for answer in self._answers:
                answer.cancel()
            self._change.wait_for(lambda: not self._answers)
        self._wait(self._hang_up())
        self._stop()

    def _give_up(self, answer: _Answer) -> None:
        with self._change:
            if answer in self._answers:
                self._loop.call_soon_threadsafe(self._cancel, answer)

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        found: Future[T] = asyncio.run_coroutine_threadsafe(work, self._loop)
        return found.result()

    def _stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._worker.join()
        self._loop.close()

    # -- adapters -----------------------------------------------------------------------------------------------------
    def _verbs(self, what: str) -> dialects.Adapters:
        verbs = dialects.ADAPTERS.get(self._dialect)
        if verbs is None:
            raise ModelError(
                f"{what}: the server at {self.url} ({self._dialect}) loads no adapters while it runs. Merge it "
                "(`tuneloop merge RUN --out model`) and serve the merged model there, or use vLLM or SGLang "
                "(serve.upstream.dialect)"
            )
        return verbs

    async def _put(self, name: str, folder: Path) -> None:
        """Lets the server load an adapter, unless it has it."""
        if name not in (await self._endpoint.models() or {}):
            verbs = self._verbs(name)
            await self._order(verbs, verbs.load, {"lora_name": name, "lora_path": str(folder)})

    async def _order(self, verbs: dialects.Adapters, path: str, body: dict[str, Any]) -> None:
        try:
            said = await self._endpoint.command(self.url.removesuffix("/v1") + path, body)
        except NotThere as error:
            raise ModelError(
                f"{self.url}: {error}. It must be started with {verbs.needs}, and find folders under the same paths as "
                "this service"
            ) from error
        except (Refused, Busy) as error:
            raise ModelError(f"{self.url} refuses: {error}") from error
        try:
            found = orjson.loads(said)
        except orjson.JSONDecodeError:  # vLLM says it in a sentence
            return
        if isinstance(found, dict) and found.get("success") is False:
            raise ModelError(f"{self.url} refuses: {str(found.get('error_message'))[:300]}")

    # -- the worker ---------------------------------------------------------------------------------------------------
    async def _opened(self) -> tuple[Endpoint, Served]:
        """The connection, and what the server says of the model."""
        config = self._config
        endpoint = Endpoint(self.url, config.model or "", config.key_env, config.concurrency + 1, None, tries=1)
        try:
            known = await endpoint.models()
            endpoint.model = config.model or dialects.only(self.url, known)
            endpoint.demand(known)
        except BaseException:
            await endpoint.__aexit__()
            raise
        told = (known or {}).get(endpoint.model, {})
        self._dialect: Dialect = dialects.spoken(told, config.dialect)
        facts = {"dialect": self._dialect}
        return endpoint, Served(endpoint.model, endpoint.identity(known), dialects.context(told), facts=facts)

    def _lost(self, why: str) -> None:
        """Nobody answers, or not for this model: looks at once, then from time to time, whether somebody does again."""
        if self._away is None and not self._closed:
            self._away = why
            self._looked.clear()
            self._watching = self._loop.create_task(self._watch())

    async def _watch(self) -> None:
        while self._away is not None:
            try:
                known = await self._endpoint.models()
                self._endpoint.demand(known)
                self._know(known)
                for name, folder in list(self._folders.items()):  # a server that was started anew has lost them
                    await self._put(name, folder)
            except (ModelError, Busy) as error:
                self._away = str(error)
                self._looked.set()
                await asyncio.sleep(PROBE)
            else:
                self._away = None
                self._looked.set()

    async def _is_same_again(self, name: str, why: str) -> bool:
        """Whether a server that hung up, or does not know a model any more, serves what it served before."""
        before = self._served.get(name)
        self._lost(why)
        await self._looked.wait()
        return self._away is None and self._served.get(name) == before

    async def _forgotten(self, name: str) -> bool:
        """Whether the server has lost an adapter, as by a start anew that nobody here noticed."""
        if name == self._base:
            return False
        try:
            known = await self._endpoint.models()
        except (ModelError, Busy):  # whatever asks next hears of it
            return False
        return known is not None and name not in known

    def _know(self, known: dict[str, dict[str, Any]] | None) -> None:
        """What answers follow from may be something else than before."""
        with self._change:
            base = replace(self._served[self._base], digest=self._endpoint.identity(known))
            self._served[self._base] = base
            for name, served in self._served.items():
                if name != self._base:
                    self._served[name] = replace(served, digest=digest.of_value([base.digest, served.adapter]))

    async def _hang_up(self) -> None:
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)
        await self._endpoint.__aexit__()

    def _begin(self, answer: _Answer) -> None:
        answer.task = self._loop.create_task(self._answer(answer))
        answer.task.add_done_callback(lambda task: self._ended(answer, task))
        if answer.cancelled:
            answer.task.cancel()
        self._admit()

    def _cancel(self, answer: _Answer) -> None:
        if answer.task is not None:  # else `_begin` sees it
            answer.task.cancel()

    def _admit(self) -> None:
        """The next ones' turn."""
        with self._change:
            while self._running < self._config.concurrency and len(self._waiting):
                self._waiting.pop().turn.set()
                self._running += 1

    async def _answer(self, answer: _Answer) -> Piece:
        """Gives an answer; returns the last piece of it. It is asked for once more where the connection broke before
        anything was told, or an adapter was lost: the server was started anew, and nobody noticed."""

        def over(finish: Finish, why: str | None = None, retry_after: float = 1.0) -> Piece:
            return Piece("", finish=finish, usage=answer.usage, why=why, retry_after=retry_after)

        try:
            async with asyncio.timeout(answer.ask.timeout):
                await answer.turn.wait()
                for again in (True, False):
                    try:
                        return await self._tell(answer)
                    except (Broken, Missing) as error:
                        same = await self._is_same_again(answer.ask.model, str(error))
                        if answer.begun or not (again and same):
                            raise
                raise AssertionError("the second try returns or raises")
        except TimeoutError:
            return over("timeout")
        except asyncio.CancelledError:  # by the ticket alone
            return over("cancelled")
        except Refused as error:
            return over("refused", str(error))
        except Busy as error:
            return over("busy", str(error), error.retry_after)
        except ModelError as error:
            if isinstance(error, Unreachable):
                self._lost(str(error))
            return over("error", str(error))
        except Exception as error:  # noqa: BLE001 - whoever waits must hear of it, whatever it is
            return over("error", f"{type(error).__name__}: {error}")

    async def _tell(self, answer: _Answer) -> Piece:
        """Asks, and tells the pieces as they come; returns the last one."""
        path, body = wire.streamed(self._model_of(answer.ask.model), answer.ask, self._dialect, self._context)
        found = wire.Streamed(answer.ask, self.url + path)
        try:
            async with aclosing(self._endpoint.events(path, body)) as events:
                async for event in events:
                    piece = found.take(event)
                    if piece is not None:
                        self._tokens += 1
                        answer.begun = True
                        answer.told(piece)
        except Refused as error:
            if await self._forgotten(answer.ask.model):  # SGLang refuses what vLLM answers by 404
                raise Missing(str(error)) from error
            raise
        finally:
            answer.usage = found.usage
        return found.end()

    def _ended(self, answer: _Answer, task: asyncio.Task[Piece]) -> None:
        """A task that is cancelled before its first step does not even begin: so the end is told here."""
        answer.told(Piece("", finish="cancelled", usage=wire.NOTHING) if task.cancelled() else task.result())
        with self._change:
            if answer.turn.is_set():
                self._running -= 1
            else:
                self._waiting.take_out(lambda one: one is answer)
            self._answers.discard(answer)
            self._change.notify_all()
        self._admit()

    def _model_of(self, name: str) -> str:
        verbs = dialects.ADAPTERS.get(self._dialect)
        return name if name == self._base or verbs is None else verbs.model.format(base=self._base, name=name)
