"""How a recipe names a model that is served elsewhere."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from tuneloop.core.plugins import Branch

Dialect = Literal["openai", "vllm", "sglang", "llama_cpp"]


class EndpointConfig(Branch):
    """A model behind an OpenAI-compatible API (vLLM, SGLang, llama.cpp, a provider), which sees what it is asked."""

    url: str
    """Its address, e.g. http://127.0.0.1:8000/v1."""
    model: str
    """The name under which it is served."""
    key_env: str = "OPENAI_API_KEY"
    """The environment variable that holds the key; servers of your own usually need none."""
    concurrency: int = Field(default=16, ge=1)
    """Requests under way at once."""
    dialect: Literal["auto"] | Dialect = "auto"
    """Which server it is: vLLM, SGLang and llama.cpp are told not to add ideas of their own about sampling. `auto`
    believes what its list of models says, which a proxy before it may hide."""
    timeout: float = Field(default=300.0, gt=0)
    """Seconds that one answer may take."""


class UpstreamConfig(Branch):
    """How a server is asked that `tuneloop serve URL` stands in front of."""

    model: str | None = None
    """The name under which it serves the model; default: the only one that it lists."""
    dialect: Literal["auto"] | Dialect = "auto"
    """Which server it is: adapters are loaded into vLLM and SGLang. `auto` believes what its list of models says."""
    key_env: str = "OPENAI_API_KEY"
    """The environment variable that holds the key; servers of your own usually need none."""
    concurrency: int = Field(default=64, ge=1)
    """Answers under way at once; more wait here, users in turns."""
    waiting: int = Field(default=256, ge=1)
    """Answers that may wait; more are refused with 429."""
