"""How a recipe names a model that is served elsewhere."""

from __future__ import annotations

from pydantic import Field

from tuneloop.core.plugins import Branch


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
    timeout: float = Field(default=300.0, gt=0)
    """Seconds that one answer may take."""
