"""Cleaning side by side: the naive pipeline, data-juicer, datatrove and `tuneloop prepare` on the same rows.

    python benchmarks/data.py --source zh.json --source en.json [--rows 20000] [--rival naive …] [--work DIR]

Rows are recombined from the sources (Alpaca form) with planted defects: made_rows.py. Each rival runs in a virtual
environment of its own (made on first use with pip; data-juicer and datatrove take about 1 GB each), in one process, and
does those of the steps that it has and that work without a network. Numbers are CPU seconds, so that a busy machine
counts less: of the work alone, in one process, after imports. tuneloop stands there twice: with the work alone as well
(rivals/run_tuneloop.py), and as the whole command, with start-up, audit card and all its processes.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

from environments import Rival, python_of
from made_rows import rows
from rivals.run_tuneloop import data_of

HERE = Path(__file__).resolve().parent
WORK, COMMAND = "tuneloop, the work alone", "tuneloop prepare, the whole command"


RIVALS = {
    "naive": Rival("language, length, exact duplicates, split", ("pandas==2.3.3", "langdetect==1.0.9")),
    "data_juicer": Rival(
        "repair, PII, length, exact and near duplicates, split",
        ("datasets==4.7.0", "ray==2.60.0", "loguru", "regex", "pydantic", "jsonargparse", "ftfy", "scipy", "pillow",
         "psutil", "tomli", "zstandard", "wget", "emoji", "beautifulsoup4", "tabulate"),
        ("py-data-juicer==1.6.1",),
    ),
    "datatrove": Rival(
        "repair, PII, near duplicates",
        ("spacy", "jieba", "ftfy", "xxhash<4", "fasteners", "tokenizers", "orjson", "humanize", "loguru", "dill",
         "multiprocess", "numpy", "tqdm", "fsspec", "huggingface-hub", "regex"),
        ("datatrove==0.10.0",),
    ),
}  # fmt: skip


def ours(path: Path, folder: Path) -> tuple[float, int]:
    """CPU seconds of `tuneloop prepare` with all its processes, start-up included, and the rows that it kept."""
    recipe = folder / "recipe.yaml"
    recipe.write_text(json.dumps({"name": "benchmark", "data": data_of(str(path))}), "utf-8")  # JSON is YAML
    command = [sys.executable, "-c", "from tuneloop.cli.main import main; main()", "prepare", str(recipe)]
    before = _children()
    done = subprocess.run(
        [*command, "--runs", str(folder / "runs"), "--json"], stdout=subprocess.PIPE, text=True, check=True
    )
    seconds = _children() - before
    return seconds, json.loads(done.stdout.splitlines()[-1])["card"]["rows"]["kept"]


def rival(name: str, path: Path, folder: Path, work: Path) -> tuple[float, int]:
    """CPU seconds of a rival's work in its own process and environment, and the rows that it kept."""
    return _script(python_of(name, RIVALS[name], work), name, path, folder)


def _script(python: str, name: str, path: Path, folder: Path) -> tuple[float, int]:
    """What a script of `rivals` reports."""
    command = [python, str(HERE / "rivals" / f"run_{name}.py"), str(path), str(folder)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    result = json.loads(done.stdout.splitlines()[-1])
    return result["seconds"], result["kept"]


def _children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def table(count: int, results: dict[str, tuple[float, int]]) -> str:
    """Markdown: rows per second, and how many times as fast tuneloop's work alone is."""
    lines = [
        "| pipeline | steps | CPU seconds | rows/s | rows kept | tuneloop's work is faster by |",
        "|---|---|--:|--:|--:|--:|",
    ]
    best = results.get(WORK, (0.0, 0))[0]
    ours = {WORK: "all, with ledger", COMMAND: "all, with start-up, ledger and card"}
    for name, (seconds, kept) in results.items():
        does = RIVALS[name].does if name in RIVALS else ours[name]
        times = f"{seconds / best:.1f}×" if best and name in RIVALS else "–"
        lines.append(f"| {name} | {does} | {seconds:.1f} | {count / seconds:,.0f} | {kept:,} | {times} |")
    return "\n".join(lines)


def main() -> None:
    """Makes the rows, runs everything that was asked for, prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--source", type=Path, action="append", required=True, help="Alpaca rows, .json or .jsonl; repeat"
    )
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--rival", action="append", choices=[*RIVALS], help="only these; all if not given; repeat")
    parser.add_argument("--without-ours", action="store_true", help="rivals only")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "tuneloop-benchmark")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    results: dict[str, tuple[float, int]] = {}
    with tempfile.TemporaryDirectory(dir=options.work) as folder:
        path = Path(folder) / "rows.jsonl"
        with path.open("w", encoding="utf-8") as file:
            file.writelines(
                json.dumps(row, ensure_ascii=False) + "\n" for row in rows(options.source, options.rows, options.seed)
            )
        for name in options.rival or RIVALS:
            (out := Path(folder) / name).mkdir()
            results[name] = rival(name, path, out, options.work)
        if not options.without_ours:
            for name in ("work", "command"):
                (Path(folder) / name).mkdir()
            results[WORK] = _script(sys.executable, "tuneloop", path, Path(folder) / "work")
            results[COMMAND] = ours(path, Path(folder) / "command")
    print(f"{options.rows:,} rows, seed {options.seed}\n\n{table(options.rows, results)}")


if __name__ == "__main__":
    main()
