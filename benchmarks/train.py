"""Training side by side: TRL, LLaMA-Factory, a plain loop and tuneloop on the same model, rows and optimizer.

    python benchmarks/train.py [WORK …] [--rounds 3] [--steps 6] [--contestant trl …] [--write]

Works: alpaca-full, alpaca-lora, system-prompt, smollm2-sst2, freeze, qwen05b-gsm8k (training); prepare (tokens, masks
and plan of 100,000 chats); start (command to first step); growth (more rows, longer rows: drawings). Every sample is a
process of its own, and the contestants take turns, so that a busy machine is busy for all. The rates count real tokens,
never padding. All train the same rows: in one order, but that what goes "by length" gets batches of similar length. The
first and the last step have the same rows for all; their losses must agree. Samples are kept in the work folder;
--write makes benchmarks/RESULTS.md of all of them. All are installed on first use (about 3 GB), or by --install.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rivals.train_tuneloop import profile
from training import made, preparing, results
from training.contestants import CONTESTANTS, python, sample, taking_part
from training.measure import Failed, about_machine, code, machine
from training.works import LENGTHS, WORKS, lay_out

TURN = 130
Sample = dict[str, Any]
Take = Callable[[str, Path], Sample]
"""Contestant and an empty folder → what was measured. Raises Failed."""
DEFAULT = ("alpaca-full", "alpaca-lora", "system-prompt", "smollm2-sst2", "freeze", "qwen05b-gsm8k", "prepare", "start")


def train(name: str, options: argparse.Namespace) -> None:
    """Rounds of a work, everybody once a round."""
    names = taking_part(WORKS[name], options.contestant)
    with _folder(options) as here:
        (here / "rows").mkdir()
        spec = lay_out(name, options.steps, here / "rows", options.work)
        for contestant in names:  # installed before the clock runs
            python(CONTESTANTS[contestant].script, options.work)

        def take(contestant: str, folder: Path) -> Sample:
            return asdict(sample(spec, contestant, folder, options.work))

        rounds(name, names, take, here, options)


def prepare(count: int, options: argparse.Namespace) -> None:
    """Rounds of the preparation of so many chats, drawn anew in each."""
    names = [name for name in preparing.CONTESTANTS if name in options.contestant or not options.contestant]
    with _folder(options) as here:

        def take(contestant: str, folder: Path) -> Sample:
            path = preparing.write(count, folder)
            return preparing.sample(contestant, count, path, folder, options.work)

        rounds(f"prepare-{count}", names, take, here, options)


def rounds(work: str, names: Sequence[str], take: Take, here: Path, options: argparse.Namespace) -> None:
    """Everybody takes a turn in every round; each sample is kept as soon as it is there."""
    for number in range(options.rounds):
        rates = machine()
        for contestant in names:
            folder = here / f"{number}-{contestant}"
            folder.mkdir()
            options.turn.let_others()
            keep(options.work, one(take, work, contestant, folder), rates)
            shutil.rmtree(folder)


def one(take: Take, work: str, contestant: str, folder: Path) -> Sample:
    """A sample, or why there is none: a rival that fails is a result too."""
    try:
        found = take(contestant, folder)
    except Failed as failure:
        found = {"work": work, "contestant": contestant, "failed": str(failure)}
    said = found.get("failed") or ", ".join(
        f"{key} {value:.4g}" for key, value in found.items() if isinstance(value, float)
    )
    print(f"{work} · {contestant}: {said}", file=sys.stderr, flush=True)
    return found


def keep(work: Path, found: Sample, rates: dict[str, float]) -> None:
    """Adds a sample to those in the work folder, with the machine and the time."""
    with (work / results.SAMPLES).open("a", encoding="utf-8") as file:
        stamp = {"at": time.strftime("%Y-%m-%d %H:%M"), "machine": about_machine(), "code": code(), "rates": rates}
        file.write(json.dumps({**found, **stamp}) + "\n")


class Turn:
    """Holds a lock file, if there is one, so that nothing else that takes it runs at the same time; lets others in
    between two samples after TURN seconds."""

    def __init__(self, path: Path | None) -> None:
        self.file = path.open("a") if path else None

    def let_others(self) -> None:
        """Between samples."""
        if time.monotonic() - self.since > TURN:
            self.__exit__()
            time.sleep(1)  # without it this process has the lock again before those who wait wake up
            self.__enter__()

    def __enter__(self) -> Turn:
        if self.file:
            fcntl.flock(self.file, fcntl.LOCK_EX)
        self.since = time.monotonic()
        return self

    def __exit__(self, *error: object) -> None:
        if self.file:
            fcntl.flock(self.file, fcntl.LOCK_UN)


def profiled(name: str, options: argparse.Namespace) -> None:
    """Where the time of tuneloop's steps goes."""
    with _folder(options) as here:
        spec = lay_out(name, options.steps, here, options.work)
        print(f"## {name}\n\n{profile(json.loads(spec.read_text('utf-8')), here)}\n")


@contextlib.contextmanager
def _folder(options: argparse.Namespace) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir=options.work) as folder:
        yield Path(folder)


def do(name: str, options: argparse.Namespace) -> None:
    """One of the works that can be named."""
    if options.profile:
        profiled(name, options)
    elif name == "prepare":
        prepare(options.count, options)
    elif name == "growth":
        for count in (1_000, 10_000, 100_000):
            prepare(count, options)
        for tokens in LENGTHS:
            train(f"length-{tokens}", options)
    else:
        train(name, options)


def main() -> None:
    """Runs what was asked for and prints its tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    every = [*WORKS, "prepare", "growth"]
    parser.add_argument("works", nargs="*", metavar="WORK", help=f"of {', '.join(every)}; without: the table of goals")
    parser.add_argument("--rounds", type=int, default=3, help="samples of each contestant")
    parser.add_argument("--steps", type=int, help="steps of a sample, the first and the last included")
    parser.add_argument("--count", type=int, default=100_000, help="chats of `prepare`")
    parser.add_argument("--contestant", action="append", choices=[*CONTESTANTS], default=[], help="only these; repeat")
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "tuneloop-benchmark")
    parser.add_argument("--data", type=Path, default=made.SHARED, help="folder with data/alpaca and so on")
    parser.add_argument("--lock", type=Path, help="take turns with whatever else locks this file")
    parser.add_argument("--install", action="store_true", help="make the environments and stop")
    parser.add_argument("--profile", action="store_true", help="tuneloop's steps by kind of operation instead")
    parser.add_argument("--write", action="store_true", help="write RESULTS.md of all samples in the work folder")
    options = parser.parse_args()
    unknown = sorted(set(options.works) - set(every))
    if unknown:
        parser.error(f"no work '{unknown[0]}'; there are {', '.join(every)}")
    made.SHARED = options.data
    options.work = options.work.resolve()
    options.work.mkdir(parents=True, exist_ok=True)
    if options.install:
        for script in {contestant.script for contestant in CONTESTANTS.values()}:
            python(script, options.work)
        return
    works = options.works or ([] if options.write else DEFAULT)
    options.turn = Turn(options.lock if works else None)
    with options.turn:
        for name in works:
            do(name, options)
    if not options.profile:
        print(results.page(options.work, write=options.write))


if __name__ == "__main__":
    main()
