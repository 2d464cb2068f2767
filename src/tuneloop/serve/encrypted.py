"""HTTPS: connections are counted, and timed, from their first moment on, not from the end of their handshake.

uvicorn counts a connection when it is encrypted, and lets asyncio wait a minute for that; so it is given plain
connections, which are encrypted here.
"""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path
from typing import Any

from tuneloop.core.errors import RecipeError
from tuneloop.serve.config import LimitsConfig
from tuneloop.serve.connections import Patient


class Encrypted(Patient):
    """HTTP over TLS, whose handshake has as much time as a request's head."""

    def __init__(self, context: ssl.SSLContext, limits: LimitsConfig, *arguments: Any, **options: Any) -> None:
        super().__init__(limits, *arguments, **options)
        self._context = context
        self._early = bytearray()
        """What comes along with the end of the handshake."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        if len(self.connections) >= self._limits.connections:
            transport.abort()
            return
        self.connections.add(self)
        # asyncio reads nothing before the task's first step, which pauses it; to pause it here, too, would undo that
        self._bare, self._handshake = transport, self.loop.create_task(self._encrypt(transport))

    async def _encrypt(self, bare: asyncio.Transport) -> None:
        patience = self._limits.read_timeout
        try:
            made = await self.loop.start_tls(
                bare, self, self._context, server_side=True, ssl_handshake_timeout=patience
            )
        except OSError:  # it is no handshake, it breaks off, or takes too long
            made = None
        if made is None or made.is_closing():
            self.connections.discard(self)
            return
        super().connection_made(made)
        if self._early:  # nothing would mean the end, for h11
            super().data_received(bytes(self._early))

    def data_received(self, data: bytes) -> None:
        if self._is_encrypted:
            super().data_received(data)
        else:
            self._early += data

    def connection_lost(self, exc: Exception | None) -> None:
        if self._is_encrypted:
            super().connection_lost(exc)
        else:
            self.connections.discard(self)

    def shutdown(self) -> None:
        """As uvicorn's: no more requests are taken."""
        if self._is_encrypted:
            super().shutdown()
        else:
            self._bare.abort()

    @property
    def _is_encrypted(self) -> bool:
        return self.transport is not None


def context(certificate: Path | str, key: Path | str) -> ssl.SSLContext:
    """How connections are encrypted. Raises RecipeError for files that are no certificate with its key."""
    made = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        made.load_cert_chain(certificate, key, password="")  # else it would ask on the terminal
    except (OSError, ValueError) as error:
        raise RecipeError(
            f"serve.tls: {certificate} and {key} are no certificate with its key, both as PEM, the key without a "
            f"passphrase ({error})"
        ) from None
    return made
