"""How `tuneloop prepare` grows from 10,000 to 1,000,000 rows: time, rows per second and the most memory at once.

    python benchmarks/data_scale.py [ROWS …]

Rows have about 400 characters, half Chinese; one in ten is an exact and one in twenty a near copy of an earlier one.
Memory is the peak of the main process and of its largest worker.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

STEPS = ["repair", {"language": {"keep": ["zh", "en"]}}, {"length": {"min_words": 3}}, {"pii": {"action": "mask"}},
         "exact_duplicates", "near_duplicates"]  # fmt: skip
ENGLISH = (
    "the a ship order customer price refund doctor fever report bank account city river teacher lesson question answer "
    "small large quick slow bring send keep lose find open close write read before after while because never always"
).split()
CHINESE = (
    "我们客户订单退款医生发烧报告银行账户城市河流老师课程问题回答小大快慢带来发送保持失去找到打开关闭"
    "写读之前之后因为从不总是他她在的了是有和"
)


def sentence(rng: random.Random, chinese: bool, size: int) -> str:
    """About `size` characters."""
    if chinese:
        return "".join(rng.choices(CHINESE, k=size // 2)) + "。"
    return " ".join(rng.choices(ENGLISH, k=size // 6)).capitalize() + "."


def write(path: Path, rows: int) -> None:
    """A JSONL file of prompts and answers."""
    rng = random.Random(0)
    kept: list[tuple[str, str]] = []
    with path.open("w", encoding="utf-8") as file:
        for number in range(rows):
            kind = rng.random()
            if kind < 0.15 and kept:
                prompt, response = rng.choice(kept)
                if kind < 0.05:
                    response += " ok"
            else:
                chinese = number % 2 == 0
                prompt, response = sentence(rng, chinese, 150), sentence(rng, chinese, 250)
                if len(kept) < 10_000:
                    kept.append((prompt, response))
            file.write(json.dumps({"prompt": prompt, "response": response}, ensure_ascii=False) + "\n")


JOB = """
import resource
from pathlib import Path
from tuneloop.data.characters import count_words
from tuneloop.data.compiled import WORTH
from tuneloop.data.prepare import prepare_in
from tuneloop.flows.recipe import load_recipe

if __name__ == "__main__":
    count_words(["a"] * WORTH)  # asks for gcc now: a child of a large process counts as large until it runs its program
    prepare_in(Path("out"), load_recipe(Path("recipe.yaml")).data, seed=0)
    print(*(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)))
"""


def measure(rows: int, folder: Path) -> tuple[float, float, float]:
    """(seconds, MB of the main process, MB of the largest worker)."""
    recipe = {
        "name": "scale",
        "data": {"sources": [{"path": str(folder / "rows.jsonl")}], "steps": STEPS},
    }
    write(folder / "rows.jsonl", rows)
    (folder / "recipe.yaml").write_text(json.dumps(recipe))
    (folder / "job.py").write_text(JOB)
    before = time.perf_counter()
    done = subprocess.run([sys.executable, "job.py"], cwd=folder, capture_output=True, text=True, check=True)
    seconds = time.perf_counter() - before
    own, worker = done.stdout.splitlines()[-1].split()
    return seconds, int(own) / 1024, int(worker) / 1024


def main() -> None:
    print("| rows | seconds | rows/s | main process, MB | largest worker, MB |\n|---:|---:|---:|---:|---:|")
    for rows in [int(text) for text in sys.argv[1:]] or [10_000, 100_000, 1_000_000]:
        with tempfile.TemporaryDirectory() as folder:
            seconds, own, worker = measure(rows, Path(folder))
        print(f"| {rows:,} | {seconds:.0f} | {rows / seconds:,.0f} | {own:,.0f} | {worker:,.0f} |", flush=True)


if __name__ == "__main__":
    main()
