"""One model in fp32, bf16, int8 and int4 behind the live engine, without HTTP: tokens a second and memory.

`python benchmarks/precision.py [MODEL]`. Prompts of about 200 tokens, 32 new ones; the first answer's time is part of
it. Every precision has a process of its own for its memory; rates are taken in turns, the best of two.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any

PLAIN = "generate, bf16"
NAMES = (PLAIN, "fp32", "bf16", "int8", "int4")
STREAMS = (1, 16)
NEW, ROUNDS = 32, 2
TEXT = "The quick brown fox jumps over the lazy dog and tells a story about it. "


def main(model: str) -> None:
    workers = {name: _worker(model, name) for name in NAMES}
    ready = {name: _read(worker) for name, worker in workers.items()}
    found: dict[str, dict[int, list[dict[str, float]]]] = {name: {n: [] for n in STREAMS} for name in NAMES}
    for turn in range(ROUNDS):
        for name, worker in workers.items():
            for streams in STREAMS:
                found[name][streams].append(_ask(worker, [streams, turn]))
    print(f"{model}, {_cpu()}\n")
    print("| precision | 1 stream | decoding | 16 streams | decoding | PSS MB |")
    print("|---|---|---|---|---|---|")
    for name, worker in workers.items():
        cells = [
            f"{max(one[kind] for one in found[name][streams]):.0f}"
            for streams in STREAMS
            for kind in ("all", "decoding")
        ]
        print(f"| {name} | {' | '.join(cells)} | {ready[name]['pss']:.0f} |")
        assert worker.stdin is not None
        worker.stdin.close()
        worker.wait()


def serve(model: str, name: str) -> None:
    """One precision: says what it takes, then answers [streams, turn] with tokens a second."""
    import torch

    from tuneloop.generate.batching import ContinuousEngine
    from tuneloop.models.config import ModelConfig
    from tuneloop.models.fewer_bits import hold
    from tuneloop.models.find import find_base
    from tuneloop.models.load import load_model
    from tuneloop.models.packed import pack
    from tuneloop.render.load import renderer_of

    base = find_base(ModelConfig(base=model))
    renderer = renderer_of(base)

    def load() -> Any:
        loaded = load_model(base, torch.float32 if name == "fp32" else torch.bfloat16)
        if name.startswith("int"):
            hold(loaded, name)  # type: ignore[arg-type]
        if name != PLAIN:
            pack(loaded)
        return loaded

    if name == PLAIN:
        rate, close = partial(_plain, load(), renderer), lambda: None
    else:
        engine = ContinuousEngine(load, renderer, base, "base")
        rate, close = partial(_rate, engine), engine.close
    for streams in STREAMS:
        rate(streams, "warm")
    _say({"pss": _pss()})
    for line in sys.stdin:
        streams, turn = json.loads(line)
        _say(rate(streams, str(turn)))
    close()


def _rate(engine: Any, streams: int, salt: str) -> dict[str, float]:
    from tuneloop.core.conversation import Message
    from tuneloop.generate.engine import Decoding, Request
    from tuneloop.generate.live import Ask, Piece

    over, starts, tokens = threading.Semaphore(0), {}, []

    def told(piece: Piece, place: int) -> None:
        starts.setdefault(place, time.perf_counter())
        if piece.finish:
            assert piece.usage is not None
            tokens.append(piece.usage.completion)
            over.release()

    began = time.perf_counter()
    for place, text in enumerate(_texts(streams, salt)):
        ask = Ask(Request((Message("user", text),)), Decoding(NEW), "base")
        engine.submit(ask, partial(told, place=place))
    for _ in range(streams):
        over.acquire()
    ended = time.perf_counter()
    return {"all": sum(tokens) / (ended - began), "decoding": (sum(tokens) - streams) / (ended - max(starts.values()))}


def _plain(model: Any, renderer: Any, streams: int, salt: str) -> dict[str, float]:
    """The same by `generate` of transformers, all prompts in one batch."""
    import torch

    from tuneloop.core.conversation import Message

    rows = [renderer.prompt((Message("user", text),), ()) for text in _texts(streams, salt)]
    longest = max(map(len, rows))
    ids = torch.tensor([[renderer.pad_id] * (longest - len(row)) + row for row in rows])
    seen = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows])
    spent = []
    for new in (1, NEW):
        began = time.perf_counter()
        out = model.generate(
            input_ids=ids, attention_mask=seen, max_new_tokens=new, do_sample=False, pad_token_id=renderer.pad_id
        )
        spent.append(time.perf_counter() - began)
    tokens = int((out[:, longest:] != renderer.pad_id).sum())
    return {"all": tokens / spent[1], "decoding": (tokens - streams) / (spent[1] - spent[0])}


def _texts(streams: int, salt: str) -> list[str]:
    return [f"{salt} {streams} {place} {TEXT * 10}" for place in range(streams)]


def _pss() -> float:
    """What this process has of the memory, in MB, pages that it shares divided."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1e3


def _cpu() -> str:
    import torch

    return (
        f"{torch.cpu.get_capabilities().get('cpu_name')}, {torch.get_num_threads()} threads, torch {torch.__version__}"
    )


def _worker(model: str, name: str) -> Any:
    command = [sys.executable, __file__, model, name]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def _say(value: Any) -> None:
    print(json.dumps(value), flush=True)


def _read(worker: Any) -> Any:
    return json.loads(next(line for line in worker.stdout if line.startswith("{")))


def _ask(worker: Any, what: Any) -> Any:
    worker.stdin.write(json.dumps(what) + "\n")
    worker.stdin.flush()
    return _read(worker)


if __name__ == "__main__":
    parse = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parse.add_argument("model", nargs="?", default="smollm2-135m-instruct")
    parse.add_argument("precision", nargs="?", help=argparse.SUPPRESS)  # of a process that this one started
    options = parse.parse_args()
    if options.precision is None:
        main(options.model)
    else:
        serve(options.model, options.precision)
