"""Cleaning side by side: the naive pipeline, data-juicer, datatrove and `tuneloop prepare` on the same rows.

    python benchmarks/data.py --source zh.json --source en.json [--rows 20000] [--rounds 3] [--rival naive] [--work DIR]

Rows are recombined from the sources (Alpaca form) with planted defects: made_rows.py. Each rival runs in a virtual
environment of its own (made on first use with pip; data-juicer and datatrove take about 1 GB each), in one process, and
does those of the steps that it has and that work without a network. Numbers are CPU seconds, so that a busy machine
counts less: of the work alone, in one process, after imports. tuneloop stands beside each rival twice: with that
rival's steps and no others, and with all steps (rivals/run_tuneloop.py); and once as the whole command, with start-up,
audit card and all its processes. In every round all of them take turns; what is printed are medians over the rounds.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from environments import Rival, python_of
from made_rows import rows
from rivals.run_tuneloop import ALL, data_of

HERE = Path(__file__).resolve().parent
COMMAND = "tuneloop prepare, the whole command"

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


Run = tuple[float, int]
"""CPU seconds, and the rows kept."""


def command(path: Path, folder: Path) -> Run:
    """`tuneloop prepare` with all its processes, start-up included."""
    recipe = folder / "recipe.yaml"
    recipe.write_text(json.dumps({"name": "benchmark", "data": data_of(str(path))}), "utf-8")  # JSON is YAML
    prepare = [sys.executable, "-m", "tuneloop", "prepare", str(recipe)]
    before = _children()
    done = subprocess.run(
        [*prepare, "--runs", str(folder / "runs"), "--json"], stdout=subprocess.PIPE, text=True, check=True
    )
    seconds = _children() - before
    return seconds, json.loads(done.stdout.splitlines()[-1])["card"]["rows"]["kept"]


def one_round(path: Path, rivals: Sequence[str], work: Path, alone: bool) -> Iterator[tuple[str, str, Run]]:
    """(pipeline, whose steps, what it took) of everything that was asked for, each in a folder of its own."""
    with tempfile.TemporaryDirectory(dir=work) as folder:
        for name in rivals:
            (out := Path(folder) / name).mkdir()
            yield name, name, _script(python_of(name, RIVALS[name], work), name, path, out)
            for like in () if alone else (name, ALL):
                (out := Path(folder) / f"{name} {like}").mkdir()
                yield "tuneloop", like, _script(sys.executable, "tuneloop", path, out, like)
        if not alone:
            (out := Path(folder) / "command").mkdir()
            yield COMMAND, ALL, command(path, out)


def _script(python: str, name: str, path: Path, folder: Path, *more: str) -> Run:
    """What a script of `rivals` reports."""
    script = [python, str(HERE / "rivals" / f"run_{name}.py"), str(path), str(folder), *more]
    done = subprocess.run(script, stdout=subprocess.PIPE, text=True, check=True)
    result = json.loads(done.stdout.splitlines()[-1])
    return result["seconds"], result["kept"]


def _children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def table(count: int, runs: Mapping[tuple[str, str], Sequence[Run]]) -> str:
    """Markdown: medians of the CPU seconds, and how many times as fast tuneloop is with the same and with all steps."""
    lines = [
        "| pipeline | steps | CPU seconds | rows/s | rows kept | tuneloop, same steps | faster by | all steps | by |",
        "|---|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    took = {key: statistics.median(seconds for seconds, _ in found) for key, found in runs.items()}
    for (name, like), seconds in sorted(took.items(), key=lambda one: one[0][0] not in RIVALS):
        if name == "tuneloop" and like != ALL:
            continue
        does = RIVALS[name].does if name in RIVALS else "all, with ledger"
        cells = [name, does, f"{seconds:.2f}", f"{count / seconds:,.0f}", f"{runs[name, like][0][1]:,}"]
        for ours in (took.get(("tuneloop", like)), took.get(("tuneloop", ALL))) if name in RIVALS else (None, None):
            cells += [f"{ours:.2f}", f"{seconds / ours:.1f}×"] if ours else ["–", "–"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Makes the rows, runs everything that was asked for, prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--source", type=Path, action="append", required=True, help="Alpaca rows, .json or .jsonl; repeat"
    )
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rival", action="append", choices=[*RIVALS], help="only these; all if not given; repeat")
    parser.add_argument("--without-ours", action="store_true", help="rivals only")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "tuneloop-benchmark")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    runs = defaultdict[tuple[str, str], list[Run]](list)
    with tempfile.TemporaryDirectory(dir=options.work) as folder:
        path = Path(folder) / "rows.jsonl"
        with path.open("w", encoding="utf-8") as file:
            file.writelines(
                json.dumps(row, ensure_ascii=False) + "\n" for row in rows(options.source, options.rows, options.seed)
            )
        for _ in range(options.rounds):
            for name, like, run in one_round(path, options.rival or [*RIVALS], options.work, options.without_ours):
                runs[name, like].append(run)
                print(f"{name}, steps of {like}: {run[0]:.2f} s, {run[1]:,} kept", file=sys.stderr, flush=True)
    print(f"{options.rows:,} rows, seed {options.seed}, {options.rounds} rounds\n\n{table(options.rows, runs)}")


if __name__ == "__main__":
    main()
