"""An Engine over any OpenAI-compatible server (vLLM, SGLang, llama.cpp, a provider): many requests, all to be answered.

Knows nothing of connections and retries, which are endpoint.py's, nor of JSON, which is wire.py's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from tuneloop.core import digest
from tuneloop.core.errors import ModelError
from tuneloop.generate import wire
from tuneloop.generate.endpoint import Endpoint, Refused, address
from tuneloop.generate.engine import Completion, Decoding, Done, Request

HOPELESS = 8  # so many refusals without one answer: it is not the rows


class OpenAIEngine:
    """Asks `model` at `base_url`, `concurrency` requests at a time; the key is in the environment variable `key_env`.

    A chat goes to /chat/completions by the server's own template, prose (role `text`) to /completions. Raises
    ModelError where the server cannot be used; a single request that it refuses is a refused Completion.
    `response_format`: what answers in a chat must look like, as OpenAI's protocol has it.
    """

    def __init__(
        self,
        base_url: str,
        model: str,
        key_env: str = "OPENAI_API_KEY",
        *,
        concurrency: int = 16,
        timeout: float = 300.0,
        response_format: wire.JsonObject | None = None,
    ) -> None:
        self.url, self.model = address(base_url), model
        self._key_env, self._concurrency, self._timeout = key_env, concurrency, timeout
        self._identity: str | None = None
        self._form = {"response_format": response_format} if response_format else {}

    def _opened(self) -> Endpoint:
        return Endpoint(self.url, self.model, self._key_env, self._concurrency, self._timeout)

    @property
    def identity(self) -> str:
        """Digest of address, model and what the server says of it; weights replaced under their name it cannot see."""
        if self._identity is None:
            self._identity = asyncio.run(self._ask_identity())
        return self._identity

    async def _ask_identity(self) -> str:
        async with self._opened() as endpoint:
            found = endpoint.identity(await endpoint.models())
        return digest.of_value([found, self._form]) if self._form else found

    def answer(self, requests: Sequence[Request], decoding: Decoding, done: Done | None = None) -> list[Completion]:
        """As Engine.answer. Sampling is the server's: a seed gives the same answer again where it keeps to seeds."""
        return asyncio.run(self._answer(requests, decoding, done))

    async def _answer(self, requests: Sequence[Request], decoding: Decoding, done: Done | None) -> list[Completion]:
        found: dict[int, Completion] = {}
        waiting = iter(enumerate(requests))

        async def work(endpoint: Endpoint) -> None:
            for place, request in waiting:
                found[place] = completion = await self._ask(endpoint, request, decoding)
                if len(found) >= HOPELESS and all(one.refused for one in found.values()):
                    raise ModelError(f"{self.url} refuses every request: {completion.refused}")
                if done is not None:
                    done(place, completion)

        async with self._opened() as endpoint:
            await asyncio.gather(*(work(endpoint) for _ in range(min(self._concurrency, len(requests)))))
        return [found[place] for place in range(len(requests))]

    async def _ask(self, endpoint: Endpoint, request: Request, decoding: Decoding) -> Completion:
        path, body = wire.asked(self.model, request, decoding)
        body |= self._form if path == wire.CHAT else {}
        try:
            return wire.completion(await endpoint.post(path, body), self.url + path)
        except Refused as error:
            return Completion((), "", False, refused=str(error))
