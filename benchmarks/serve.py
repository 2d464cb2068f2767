"""Servers side by side, under 1, 4 and 16 clients: the same model, prompts and number of tokens, all answers streamed.

    python benchmarks/serve.py [--model smollm2-135m-instruct] [--clients 1 --clients 4 …] [--new 96] [--rounds 3]
        [--contestant NAME …] [--llama PYTHON GGUF] [--llama-server BINARY GGUF] [--vllm PYTHON]

Contestants: `tuneloop` (tuneloop serve), `transformers` (transformers serve), `transformers-cb` (the same with
--continuous-batching), `generate` (no server: model.generate for one prompt, for 4 and for 16 of them padded), and,
where they are named, `llama` (llama-cpp-python's server with a GGUF file), `llama-server` (llama.cpp's own, with as
many places as there are clients) and `vllm` (its CPU build, which compiles the model first). All but llama.cpp compute
in bf16 where the machine is fast at it; servers are started anew in each round, contestants take turns. Every client
asks twice, one question after the other; no two prompts are the same. Prints a Markdown table of medians: tokens/s of
all clients together, milliseconds to the first token and between two pieces of text (p50 / p95).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import h11
import httpx
from training.measure import about_machine

from tuneloop.models.config import ModelConfig
from tuneloop.models.find import find_base

TOPICS = "fox lighthouse river baker robot winter garden violin market island dragon train library storm clock orchard"
ASKED = 2
"""Questions of each client, one after the other."""


@dataclass
class Measured:
    """What the clients of one contestant saw, in all rounds."""

    rates: list[float] = field(default_factory=list[float])
    first: list[float] = field(default_factory=list[float])
    gaps: list[float] = field(default_factory=list[float])


@dataclass(frozen=True)
class Server:
    """A command that serves, its model's name in requests, and what its requests have besides."""

    command: Sequence[str]
    model: str
    more: dict[str, Any] = field(default_factory=dict[str, Any])
    environment: dict[str, str] = field(default_factory=dict[str, str])


def question(number: int) -> str:
    """One of many different prompts."""
    topics = TOPICS.split()
    return f"Tell me a very long story about a {topics[number % 16]} and number {number}, with many details."


class Reader(asyncio.Protocol):
    """Sends one request and notes what comes when; it is read afterwards, so that clients take no time from servers."""

    def __init__(self, request: bytes) -> None:
        self.request = request
        self.came: list[tuple[float, bytes]] = []
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.sent = 0.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self.sent = time.perf_counter()
        transport.write(self.request)

    def data_received(self, data: bytes) -> None:
        self.came.append((time.perf_counter(), data))

    def connection_lost(self, exc: Exception | None) -> None:
        self.over.set_result(None)

    def pieces(self) -> Iterator[tuple[float, str]]:
        """Each piece of text and when it came. Ends the program where the server refused."""
        connection, line, status = h11.Connection(h11.CLIENT), b"", 0
        connection.send(h11.Request(method="POST", target="/", headers=[("Host", "x"), ("Content-Length", "0")]))
        connection.send(h11.EndOfMessage())
        for at, data in self.came:
            connection.receive_data(data)
            while (event := connection.next_event()) not in (h11.NEED_DATA, h11.PAUSED):
                if isinstance(event, h11.Response):
                    status = event.status_code
                if isinstance(event, h11.Data):
                    *lines, line = (line + bytes(event.data)).split(b"\n")
                    if status != 200:
                        raise SystemExit(f"the server answers {status}: {bytes(event.data)[:300]!r}")
                    for text in map(_said, lines):
                        if text:
                            yield at, text
                if isinstance(event, h11.EndOfMessage | h11.ConnectionClosed):
                    return


def _said(line: bytes) -> str:
    """The text of an event."""
    if not line.startswith(b"data: {"):
        return ""
    choices = json.loads(line[6:]).get("choices") or [{}]
    return (choices[0].get("delta") or {}).get("content") or ""


async def ask(host: str, port: int, server: Server, number: int, new: int) -> Reader:
    """One question and all that was answered."""
    body = json.dumps({
        "model": server.model, "messages": [{"role": "user", "content": question(number)}], "max_tokens": new,
        "stream": True, **server.more,
    }).encode()  # fmt: skip
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\n"
    head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    made = asyncio.get_running_loop().create_connection(lambda: Reader(head.encode() + body), host, port)
    _, reader = await made
    async with asyncio.timeout(600):
        await reader.over
    return reader


async def crowd(url: str, server: Server, clients: int, new: int, round_: int, count: Any) -> tuple[float, Measured]:
    """Tokens a second of so many clients at once, and their latencies. Raises OSError for a server that is gone."""
    host, port = url.removeprefix("http://").split(":")
    answered: list[Reader] = []

    async def one(place: int) -> None:
        for turn in range(ASKED):
            number = 1_000 * round_ + 100 * clients + ASKED * place + turn
            answered.append(await ask(host, int(port), server, number, new))

    started = time.perf_counter()
    await asyncio.gather(*(one(place) for place in range(clients)))
    spent = time.perf_counter() - started
    seen, tokens = Measured(), 0
    for reader in answered:
        pieces = list(reader.pieces())
        if not pieces:
            raise OSError("an answer without text")
        times = [at for at, _ in pieces]
        tokens += count("".join(text for _, text in pieces))
        seen.first.append(times[0] - reader.sent)
        seen.gaps += [after - before for before, after in pairwise(times)]
    return tokens / spent, seen


@contextmanager
def running(server: Server, folder: Path) -> Iterator[str]:
    """The server's address, once it answers."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [part.replace("PORT", str(port)) for part in server.command]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1", **server.environment}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder, env=environment)
        url = f"http://127.0.0.1:{port}"
        try:
            for _ in range(4_000):
                if process.poll() is not None:
                    raise SystemExit(f"{command}: {(folder / 'log').read_text('utf-8', 'replace')[-2_000:]}")
                try:
                    if httpx.get(f"{url}/v1/models", timeout=5).status_code != 503:  # still loading
                        break
                except httpx.HTTPError:
                    pass
                time.sleep(0.2)
            yield url
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()


def plain(path: str, clients: Sequence[int], new: int, round_: int) -> dict[int, float]:
    """Tokens a second of model.generate, prompts of a batch padded on the left."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from tuneloop.models.precision import pick_dtype

    tokenizer: Any = AutoTokenizer.from_pretrained(path, padding_side="left")
    model: Any = AutoModelForCausalLM.from_pretrained(path, dtype=pick_dtype("auto", "cpu")[0]).eval()
    found = dict[int, float]()
    for batch in (1, *clients):  # the first of them warms up
        texts = [
            tokenizer.apply_chat_template(
                [{"role": "user", "content": question(1_000 * round_ + 100 * batch + place)}], tokenize=False,
                add_generation_prompt=True,
            )
            for place in range(batch)
        ]  # fmt: skip
        given = tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=False)
        started = time.perf_counter()
        with torch.inference_mode():
            out = model.generate(**given, max_new_tokens=new, do_sample=False)
        spent = time.perf_counter() - started
        found[batch] = int((out[:, given["input_ids"].shape[1] :] != tokenizer.pad_token_id).sum()) / spent
    return {number: found[number] for number in clients}


def servers(path: str, options: argparse.Namespace, most: int) -> dict[str, Server]:
    """All contestants that are servers, for so many clients at most."""
    bins = Path(sys.executable).parent
    theirs = [str(bins / "transformers"), "serve", path, "--port", "PORT", "--device", "cpu", "--dtype", "bfloat16"]
    greedy = {"temperature": 0.0}
    config = json.dumps({"do_sample": False})
    found = {
        "tuneloop": Server([str(bins / "tuneloop"), "serve", path, "--port", "PORT"], "model"),
        "transformers": Server(theirs, path, {"generation_config": config}),
        "transformers-cb": Server([*theirs, "--continuous-batching"], path, {"generation_config": config}),
    }
    if options.llama:
        python, gguf = options.llama
        one_by_one = ["--interrupt_requests", "false"]  # by default a new request cuts the one at work off
        command = [python, "-m", "llama_cpp.server", "--model", gguf, "--port", "PORT", *one_by_one]
        found["llama"] = Server(command, "x", greedy)
    if options.llama_server:
        binary, gguf = options.llama_server
        size = ["-t", str(os.cpu_count()), "-np", str(most), "-c", str(2_048 * most)]
        found["llama-server"] = Server([binary, "-m", gguf, "--port", "PORT", *size], "x", greedy)
    if options.vllm:
        command = [options.vllm, "-m", "vllm.entrypoints.openai.api_server", "--model", path, "--port", "PORT"]
        command += ["--host", "127.0.0.1", "--served-model-name", "x", "--max-model-len", "2048", "--dtype", "bfloat16"]
        found["vllm"] = Server(command, "x", greedy, {"VLLM_CPU_KVCACHE_SPACE": "1"})
    return found


def main() -> None:
    parse = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parse.add_argument("--model", default="smollm2-135m-instruct")
    parse.add_argument("--clients", type=int, action="append")
    parse.add_argument("--new", type=int, default=96)
    parse.add_argument("--rounds", type=int, default=3)
    parse.add_argument("--contestant", action="append")
    parse.add_argument("--llama", nargs=2, metavar=("PYTHON", "GGUF"))
    parse.add_argument("--llama-server", nargs=2, metavar=("BINARY", "GGUF"))
    parse.add_argument("--vllm", metavar="PYTHON")
    parse.add_argument("--plain-round", type=int, help=argparse.SUPPRESS)
    options = parse.parse_args()
    path = str(find_base(ModelConfig(base=options.model)).path)
    clients = options.clients or [1, 4, 16]
    if options.plain_round is not None:
        print(json.dumps(plain(path, clients, options.new, options.plain_round)))
        return
    from transformers import AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(path)

    def count(text: str) -> int:
        return len(tokenizer.encode(text, add_special_tokens=False))

    all_servers = servers(path, options, max(clients))
    names = options.contestant or ["generate", *all_servers]
    found = {(name, number): Measured() for name in names for number in clients}
    for round_ in range(options.rounds):
        for name in names:
            if name == "generate":
                again = [sys.executable, __file__, "--model", options.model, "--new", str(options.new)]
                again += [part for number in clients for part in ("--clients", str(number))]
                said = subprocess.run([*again, "--plain-round", str(round_)], check=True, capture_output=True).stdout
                for number, rate in json.loads(said.splitlines()[-1]).items():
                    found[name, int(number)].rates.append(rate)
                continue
            server = all_servers[name]
            with tempfile.TemporaryDirectory() as folder, running(server, Path(folder)) as url:
                if name == "tuneloop":
                    listed = httpx.get(f"{url}/v1/models").json()["data"][0]["id"]
                    server = Server(server.command, listed, server.more)
                for number in (0, *clients):  # at first it warms up
                    try:
                        if not number:
                            asyncio.run(crowd(url, server, 1, 8, 90 + round_, count))
                            continue
                        rate, seen = asyncio.run(crowd(url, server, number, options.new, round_, count))
                    except (OSError, h11.RemoteProtocolError) as error:
                        print(f"{name}, {number} clients: {type(error).__name__}: {error}", file=sys.stderr)
                        break
                    found[name, number].rates.append(rate)
                    found[name, number].first += seen.first
                    found[name, number].gaps += seen.gaps
    _print(options, clients, names, found)


def _print(
    options: argparse.Namespace, clients: Sequence[int], names: Sequence[str], found: dict[Any, Measured]
) -> None:
    machine = about_machine()
    print(f"- machine: {machine['cpu']}, {machine['cores']} cores ({', '.join(machine['has'])})")
    print(f"- {options.model}, at most {options.new} tokens an answer, {ASKED} answers a client;", end=" ")
    print(f"{options.rounds} rounds\n")
    print(
        "| contestant | clients | tokens/s | samples | first token ms | between tokens ms |\n|---|--:|--:|---|--:|--:|"
    )
    for number in clients:
        for name in names:
            seen = found[name, number]
            if not seen.rates:
                print(f"| {name} | {number} | failed | | | |")
                continue
            samples = ", ".join(f"{rate:.0f}" for rate in seen.rates)
            latency = f"{_spread(seen.first)} | {_spread(seen.gaps)}" if seen.first else "– | –"
            print(f"| {name} | {number} | {statistics.median(seen.rates):.0f} | {samples} | {latency} |")


def _spread(seconds: Sequence[float]) -> str:
    ordered = sorted(seconds)
    return " / ".join(f"{1e3 * ordered[min(len(ordered) - 1, int(part * len(ordered)))]:.0f}" for part in (0.5, 0.95))


if __name__ == "__main__":
    main()
