"""How long the report of a large evaluation takes, from scores to pages, and the most memory it holds.

    python benchmarks/report.py [ROWS]

Rows are half Chinese, with labels, two-level tasks and 8 sources; 4 metrics of base and tuned (a proportion, two means,
a geometric mean); 6 keys of slices. Models take no part. Also: the comparison of two such runs.
"""

from __future__ import annotations

import json
import math
import random
import resource
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

ROWS = 10_000
ENGLISH = "what is the best way to send back an order that came late and was not the one that I had asked for".split()
CHINESE = "请问我的订单为什么还没有送到能不能帮我查一下快递现在在哪里谢谢"
TASKS = ("reasoning/common-sense", "reasoning/arithmetic", "summary/news", "translation/zh-en")


def made(rows: int) -> tuple[list[Any], dict[str, Any]]:
    """Examples, and what base and tuned would have done with them."""
    from tuneloop.core.conversation import Example, Message, Origin

    rng = random.Random(0)
    examples: list[Any] = []
    for number in range(rows):
        size = rng.randint(3, 20)
        asked = " ".join(rng.choices(ENGLISH, k=size)) if number % 2 else "".join(rng.choices(CHINESE, k=2 * size))
        answer = Message("assistant", f"answer {number} " + " ".join(rng.choices(ENGLISH, k=8)))
        meta = {"label": rng.choice("abcd"), "task": rng.choice(TASKS), "kind": f"k{rng.randrange(12)}"}
        examples.append(
            Example((Message("user", f"{asked} {number}"), answer), Origin(f"f{number % 8}", number), meta=meta)
        )
    return examples, {"base": 0.55, "tuned": 0.8}


def entrant(share: float, seed: int) -> Any:
    """A contestant that answers at once, right in a share of the rows."""
    from tuneloop.evaluate.contestant import Contestant, Local
    from tuneloop.generate.scripted import ScriptedEngine

    rng = random.Random(seed)

    @contextmanager
    def opened() -> Any:
        def answer(request: Any) -> str:
            number = request.messages[-1].content.rpartition(" ")[2]
            return f"answer {number} " + " ".join(ENGLISH[:8]) if rng.random() < share else "no"

        renderer = SimpleNamespace(
            tokenizer=SimpleNamespace(encode=lambda text, add_special_tokens: text.split()), render=lambda one: [one]
        )
        nll = lambda rows: [(rng.expovariate(1 - share / 2) * 9, 9.0) for _ in rows]  # noqa: E731
        yield Contestant(ScriptedEngine(answer), Local(renderer, nll))  # type: ignore[arg-type]

    return opened


def measure(rows: int) -> dict[str, float]:
    """Seconds by part and the peak of memory in MB, in this process."""
    from tuneloop.evaluate import comparing, report
    from tuneloop.evaluate.config import EvaluateConfig
    from tuneloop.evaluate.evaluate import evaluate

    examples, shares = made(rows)
    keys = ["label", "language", "length", "source", "task", "kind", {"name": "long", "where": "words(prompt) > 20"}]
    config = EvaluateConfig.model_validate({
        "metrics": ["exact_match", "f1", "rouge_l", "perplexity"], "slices": keys, "max_new_tokens": 40,
    })  # fmt: skip
    entrants = {name: entrant(share, seed) for seed, (name, share) in enumerate(shares.items())}
    took: dict[str, float] = {}

    def timed(name: str, module: Any, function: str) -> None:
        inner = getattr(module, function)

        def outer(*given: Any, **options: Any) -> Any:
            started = time.perf_counter()
            try:
                return inner(*given, **options)
            finally:
                took[name] = took.get(name, 0.0) + time.perf_counter() - started

        setattr(module, function, outer)

    stage = sys.modules["tuneloop.evaluate.evaluate"]
    timed("asking and scoring", stage, "ask")
    timed("asking and scoring", stage, "score_contestants")
    timed("slicing", stage, "cut")
    timed("numbers", stage, "_report")
    timed("pages", report, "write_pages")
    before = _peak()
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        found = evaluate(config, examples, entrants, SimpleNamespace(out=Path(folder)))  # type: ignore[arg-type]
        whole = time.perf_counter() - started
        side = comparing.Side("a", found.value, found.samples)
        other = replace(side, name="b", who="base")
        started = time.perf_counter()
        comparing.align([other, side]).to_json()
        compared = time.perf_counter() - started
        size = sum(path.stat().st_size for path in Path(folder).iterdir())
    assert math.isfinite(found.value["metrics"]["f1"]["difference"]["low"])
    return {
        "rows": rows, "report, s": whole - took["asking and scoring"], **{f"{k}, s": v for k, v in took.items()},
        "comparison, s": compared, "peak, MB": _peak(), "of it before, MB": before, "files, MB": size / 1e6,
    }  # fmt: skip


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    """Measures in a process of its own, so that the peak is the report's."""
    if sys.argv[1:2] == ["--here"]:
        print(json.dumps(measure(int(sys.argv[2]))))
        return
    rows = sys.argv[1] if len(sys.argv) > 1 else str(ROWS)
    done = subprocess.run([sys.executable, __file__, "--here", rows], stdout=subprocess.PIPE, text=True, check=True)
    for name, value in json.loads(done.stdout.splitlines()[-1]).items():
        print(f"{name:<24}{value:>12,.2f}" if isinstance(value, float) else f"{name:<24}{value:>12,}")


if __name__ == "__main__":
    main()
