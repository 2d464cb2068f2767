"""The recipe's branch `serve`: where the service listens, what it serves, what it allows."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from tuneloop.core.plugins import Branch
from tuneloop.core.recipe import InputPath
from tuneloop.generate.config import UpstreamConfig


class LimitsConfig(Branch):
    """What one client may ask for; whatever goes beyond is refused, never cut."""

    body_bytes: int = Field(default=1 << 20, ge=1 << 10)
    """Size of a request."""
    messages: int = Field(default=256, ge=1)
    """Messages of a conversation, prompts or texts of one request."""
    depth: int = Field(default=32, ge=4, le=512)
    """How deep the JSON of a request may be nested."""
    schema_bytes: int = Field(default=32_768, ge=2)
    """Size of a JSON Schema (`response_format`, the parameters of a tool)."""
    schema_depth: int = Field(default=16, ge=1)
    """How deep a JSON Schema may be nested."""
    tools: int = Field(default=64, ge=0)
    """Tools of one request."""
    choices: int = Field(default=8, ge=1)
    """Answers to one request (`n`, times the prompts)."""
    max_tokens: int = Field(default=4_096, ge=1)
    """Tokens of an answer; also what is taken where a chat request names no limit."""
    requests_per_minute: int = Field(default=600, ge=1)
    """Requests of one key, and of everybody without a key together."""
    feedback_per_minute: int = Field(default=60, ge=1)
    """Votes of one key."""
    timeout: float = Field(default=300.0, gt=0)
    """Seconds until an answer is given up, waiting included."""
    read_timeout: float = Field(default=20.0, gt=0)
    """Seconds in which a request must have arrived as a whole, and before it the handshake of TLS."""
    write_timeout: float = Field(default=30.0, gt=0)
    """Seconds after which a client that takes nothing of its answer is cut off."""
    connections: int = Field(default=1_024, ge=1)
    """Open connections; more are closed at once."""


class QuantizeConfig(Branch):
    """Linear layers in fewer bits on a CPU, and how near to full precision such a model must be to serve.

    It is measured at the first start; docs/serve.md has what models reach.
    """

    scheme: Literal["none", "int8", "int4"] = "none"
    """8 or 4 bits: one stream of a larger model is faster, and the model smaller; int4 is for memory alone."""

    same: float = Field(default=0.95, ge=0, le=1)
    """Share of the words of an answer that are chosen as in full precision, at least."""
    kl: float = Field(default=0.02, ge=0)
    """Mean KL divergence from full precision in nats a token, at most."""
    kl_p99: float = Field(default=0.3, ge=0)
    """The same for the worst of a hundred tokens."""


class TlsConfig(Branch):
    """A certificate of the service's own."""

    certificate: InputPath | None = None
    """TLS certificate (PEM)."""
    key: InputPath | None = None
    """Private key of the certificate (PEM)."""


class ServeConfig(Branch):
    """An OpenAI-compatible service. By default nobody but this machine can reach it."""

    host: str = "127.0.0.1"
    """Address to listen on. Any other than this machine's own needs a key (`tuneloop keys create`)."""
    port: int = Field(default=8000, ge=0, le=65_535)
    """Port to listen on; 0 takes a free one."""
    name: str | None = Field(default=None, min_length=1, max_length=128, pattern=r"^[\w.:@/-]+$")
    """The model's public name; default: the name of the run or base."""
    adapters: dict[str, str] = Field(default={})
    """Further models on the same base: public name → finished tune run."""
    quantize: QuantizeConfig = QuantizeConfig()
    """Weights in fewer bits."""
    hosts: tuple[str, ...] = ()
    """Names under which clients reach the service (their `Host` header); localhost and IP addresses always pass."""
    key_file: InputPath | None = None
    """File with further keys for chat and feedback, one a line, readable by its owner alone."""
    tls: TlsConfig = TlsConfig()
    """Encryption by this process; without it put a proxy with TLS in front."""
    store: str = "sqlite:///tuneloop.db"
    """Where answers, feedback and keys are kept: an SQLAlchemy URL (SQLite or PostgreSQL)."""
    secret_file: Path = Path("tuneloop.secret")
    """File with the secret that signs answer ids; made at the first start, readable by its owner alone."""
    page: bool = True
    """Whether people can chat in a browser, at `/`."""
    encoder: InputPath | None = None
    """Folder of a sentence encoder for /v1/embeddings; without it that route does not exist."""
    drain: float = Field(default=30.0, ge=0)
    """Seconds that answers under way are given when the service is told to stop."""
    limits: LimitsConfig = LimitsConfig()
    """What one client may ask for."""
    engine: Literal["transformers", "llama_cpp"] = "transformers"
    """What computes a model in this process; llama.cpp takes .gguf files alone."""
    upstream: UpstreamConfig = UpstreamConfig()
    """The server behind this one, where MODEL is a URL."""
