"""Runs a service: checks that what it exposes is guarded, listens, drains on a signal. Knows nothing of engines."""

from __future__ import annotations

import ipaddress
import logging
import resource
import signal
import socket
import time
from functools import partial
from types import FrameType
from typing import Any

import uvicorn

from tuneloop.core.errors import RecipeError
from tuneloop.serve import encrypted
from tuneloop.serve.app import build
from tuneloop.serve.config import ServeConfig
from tuneloop.serve.connections import Patient, Socket
from tuneloop.serve.encrypted import Encrypted
from tuneloop.serve.front import Site
from tuneloop.serve.service import Service

LOG = logging.getLogger("tuneloop.serve")
OWN_FILES = 256
"""Files of the process beside its connections: database, server behind, log, libraries."""


class Server(uvicorn.Server):
    """uvicorn's, with a drain: at the first signal no new answers are begun, at the second all ends at once."""

    def __init__(self, service: Service, site: Site | None = None) -> None:
        self._service, self._last = service, float("inf")
        super().__init__(configured(service, site))

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        make_room(self._service.config.limits.connections)
        await super().startup(sockets)
        if self.started:  # the port that a 0 became
            LOG.info("listening on port %d", self.servers[0].sockets[0].getsockname()[1])

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self._service.draining or sig not in (signal.SIGTERM, signal.SIGINT):
            super().handle_exit(sig, frame)
            return
        self._service.drain()
        self._last = time.monotonic() + self._service.config.drain

    async def on_tick(self, counter: int) -> bool:
        if self._service.draining and (not self._service.under_way or time.monotonic() > self._last):
            self.should_exit = True
        return await super().on_tick(counter)


def configured(service: Service, site: Site | None = None) -> uvicorn.Config:
    """uvicorn's settings: one process, no log of its own for requests, no trust in headers of proxies."""
    config = service.config
    return uvicorn.Config(
        build(service, site), host=config.host, port=config.port, **_protocols(config), lifespan="on",
        loop="auto" if config.tls.certificate is None else "asyncio",  # uvloop's start_tls is another one
        access_log=False, log_config=None, server_header=False, proxy_headers=False, timeout_graceful_shutdown=5,
    )  # fmt: skip


def _protocols(config: ServeConfig) -> dict[str, Any]:
    """What uvicorn makes the protocol of each connection with."""
    limits, tls = config.limits, config.tls
    http = partial(Patient, limits)
    if tls.certificate is not None and tls.key is not None:
        http = partial(Encrypted, encrypted.context(tls.certificate, tls.key), limits)
    return {"http": http, "ws": partial(Socket, limits), "ws_max_size": limits.body_bytes}


def check(config: ServeConfig, *, has_key: bool) -> None:
    """Raises RecipeError for a service that others could reach without a key, or with no whole certificate."""
    if (config.tls.certificate is None) != (config.tls.key is None):
        raise RecipeError("serve.tls.certificate and serve.tls.key go together")
    _protocols(config)
    if not is_loopback(config.host) and not has_key:
        raise RecipeError(
            f"serve.host: {config.host} can be reached from other machines, and there is no key. Make one with "
            "`tuneloop keys create NAME --role chat`, or give --key-file. Keys travel in the clear without TLS: set "
            "serve.tls.certificate and serve.tls.key, or put a proxy with TLS in front (docs/serve.md)"
        )


def make_room(connections: int) -> None:
    """Lets this process open as many files as it may have connections, and its own beside them.

    Systems give 1,024 at first: silent clients alone could take them all, and the database would not open any more.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + OWN_FILES
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    if hard != resource.RLIM_INFINITY and hard < wanted:
        LOG.warning(
            "serve.limits.connections: %d connections need %d open files, and the system allows %d: set it to %d or "
            "allow more (LimitNOFILE, ulimit -n)", connections, wanted, hard, max(1, hard - OWN_FILES),
        )  # fmt: skip
        wanted = hard
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address. A name other than localhost may be any address."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def log_to_stderr() -> None:
    """One line a request, and what uvicorn has to say that matters."""
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("tuneloop.serve").setLevel(logging.INFO)
