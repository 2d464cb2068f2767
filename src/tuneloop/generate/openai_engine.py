"""An Engine over any OpenAI-compatible server (vLLM, SGLang, llama.cpp, a provider): many requests, all to be answered.

Knows nothing of connections and retries, which are endpoint.py's, nor of JSON, which is wire.py's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Literal

from tuneloop.core import digest
from tuneloop.core.errors import ModelError
from tuneloop.generate import dialects, wire
from tuneloop.generate.config import Dialect
from tuneloop.generate.endpoint import Denied, Endpoint, Refused, address
from tuneloop.generate.engine import Completion, Decoding, Done, Request

HOPELESS = 8  # so many refusals without one answer: it is not the rows


class OpenAIEngine:
    """Asks `model` at `base_url`, `concurrency` requests at a time; the key is in the environment variable `key_env`.

    A chat goes to /chat/completions by the server's own template, prose (role `text`) to /completions. Raises
    ModelError where the server cannot be used; a single request that it refuses is a refused Completion.
    `dialect`: which server it is, by default what its list of models says. `response_format`: what answers in a chat
    must look like, as OpenAI's protocol has it.
    """

    def __init__(
        self,
        base_url: str,
        model: str,
        key_env: str = "OPENAI_API_KEY",
        *,
        concurrency: int = 16,
        timeout: float = 300.0,
        dialect: Literal["auto"] | Dialect = "auto",
        response_format: wire.JsonObject | None = None,
    ) -> None:
        self.url, self.model = address(base_url), model
        self._key_env, self._concurrency, self._timeout = key_env, concurrency, timeout
        self._wanted: Literal["auto"] | Dialect = dialect
        self._known: tuple[str, Dialect] | None = None
        self._form = {"response_format": response_format} if response_format else {}

    def _opened(self) -> Endpoint:
        return Endpoint(self.url, self.model, self._key_env, self._concurrency, self._timeout)

    @property
    def identity(self) -> str:
        """Digest of address, model, what the server says of it, and what each request says beside the conversation;
        weights replaced under their name it cannot see."""
        return (self._known or asyncio.run(self._introduced()))[0]

    async def _introduced(self) -> tuple[str, Dialect]:
        async with self._opened() as endpoint:
            return await self._meet(endpoint)

    async def _meet(self, endpoint: Endpoint) -> tuple[str, Dialect]:
        """Identity and dialect of the server, which is asked once."""
        if self._known is None:
            try:
                models = await endpoint.models()
            except Denied:  # a key may be good for answers alone; of one that is not the first answer tells
                models = None
            dialect = dialects.spoken((models or {}).get(self.model, {}), self._wanted)
            more = {**dialects.PLAIN.get(dialect, {}), **self._form}
            found = endpoint.identity(models)
            self._known = digest.of_value([found, more]) if more else found, dialect
        return self._known

    def answer(self, requests: Sequence[Request], decoding: Decoding, done: Done | None = None) -> list[Completion]:
        """As Engine.answer. Sampling is the server's: a seed gives the same answer again where it keeps to seeds."""
        return asyncio.run(self._answer(requests, decoding, done)) if requests else []

    async def _answer(self, requests: Sequence[Request], decoding: Decoding, done: Done | None) -> list[Completion]:
        found: dict[int, Completion] = {}
        waiting = iter(enumerate(requests))

        async def work(endpoint: Endpoint, dialect: Dialect) -> None:
            for place, request in waiting:
                found[place] = completion = await self._ask(endpoint, request, decoding, dialect)
                if len(found) >= HOPELESS and all(one.refused for one in found.values()):
                    raise ModelError(f"{self.url} refuses every request: {completion.refused}")
                if done is not None:
                    done(place, completion)

        async with self._opened() as endpoint:
            _, dialect = await self._meet(endpoint)
            await asyncio.gather(*(work(endpoint, dialect) for _ in range(min(self._concurrency, len(requests)))))
        return [found[place] for place in range(len(requests))]

    async def _ask(self, endpoint: Endpoint, request: Request, decoding: Decoding, dialect: Dialect) -> Completion:
        path, body = wire.asked(self.model, request, decoding, dialect)
        body |= self._form if path == wire.CHAT else {}
        try:
            return wire.completion(await endpoint.post(path, body), self.url + path)
        except Refused as error:
            return Completion((), "", False, refused=str(error))
