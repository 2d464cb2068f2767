"""Who takes part: what is installed for them, how a work is put to them, and what a sample of each says."""

from __future__ import annotations

import compileall
import json
import statistics
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from environments import Rival, python_of
from rivals.train_tuneloop import recipe
from training.flops import needed
from training.measure import Failed, Ran, ran
from training.works import WORKS, Work, timed

import tuneloop

REPO = Path(tuneloop.__path__[0]).parents[1]
RIVALS_FOLDER = Path(__file__).resolve().parents[1] / "rivals"
TORCH = "torch==2.13.0"  # the CPU build where pip is told of one, as in the Makefile
TOKENS = ("transformers==5.23.0", "tokenizers==0.23.3", "accelerate==1.15.0", "peft==0.21.2")
RIVALS = {
    "trl": Rival("supervised fine-tuning", (TORCH, "trl==1.16.0", "datasets==5.2.0", *TOKENS)),
    "llama_factory": Rival(
        # it brings torchvision and torchaudio, whose usual builds do not load beside a torch without CUDA
        "supervised fine-tuning", (TORCH, "llamafactory==0.9.5"), without=("torchvision", "torchaudio"),
    ),
}  # fmt: skip


OURS = Rival(  # what its users have, without what else our tests need: peft imports bitsandbytes wherever it is
    "supervised fine-tuning",
    (TORCH, "--constraint", str(REPO / "constraints.txt"),
     *tomllib.loads((REPO / "pyproject.toml").read_text("utf-8"))["project"]["dependencies"]),
)  # fmt: skip


@dataclass(frozen=True)
class Contestant:
    """A way to do the work. `best` stands for the rival's best correct settings where it is the fastest of them."""

    title: str
    script: str
    variant: str = ""
    best: bool = False


CONTESTANTS = {
    "trl": Contestant("TRL, defaults", "trl", "default"),
    "trl-length": Contestant("TRL, by length, no checkpointing", "trl", "length", best=True),
    "trl-length-fp32": Contestant("TRL, by length, no checkpointing, fp32", "trl", "length-fp32", best=True),
    "trl-length-bf16-weights": Contestant(
        "TRL, by length, no checkpointing, frozen weights in bf16", "trl", "length-bf16-weights", best=True
    ),
    "trl-one-by-one": Contestant("TRL, one row at a time, no checkpointing", "trl", "one-by-one", best=True),
    "llama-factory": Contestant("LLaMA-Factory, defaults", "llama_factory", "default"),
    "llama-factory-length": Contestant(
        "LLaMA-Factory, by length, no checkpointing", "llama_factory", "length", best=True
    ),
    "plain": Contestant("plain bf16 loop, padded", "plain", "default"),
    "plain-length": Contestant("plain bf16 loop, by length", "plain", "length", best=True),
    "tuneloop": Contestant("tuneloop", "tuneloop"),
    "tuneloop-uncached": Contestant("tuneloop, frozen layers computed in every epoch", "tuneloop", "uncached"),
}
ONLY = {"trl-length-bf16-weights": "lora", "tuneloop-uncached": "freeze"}
"""Who takes part only where this method is asked for."""
USUAL = (
    "tuneloop",
    "tuneloop-uncached",
    "trl-length",
    "trl-length-bf16-weights",
    "plain-length",
    "llama-factory-length",
    "trl",
    "llama-factory",
)
"""Who runs where nobody is named; the others were slower wherever they were tried."""


@dataclass(frozen=True)
class Sample:
    """One run of a contestant. Rates over the timed steps, in real tokens."""

    work: str
    contestant: str
    tokens_per_second: float
    flops_per_second: float
    """Of what the work needs at least; see flops.py."""
    first_loss: float
    last_loss: float
    first_step: float
    """Seconds from the command to the end of the first step."""
    seconds: float
    peak_gib: float
    others: float
    """Share of the cores that other processes had."""


def taking_part(work: Work, asked: list[str]) -> list[str]:
    """Names in the order of their turns."""
    return [name for name in asked or USUAL if ONLY.get(name) in (None, *work.method)]


def python(script: str, work: Path) -> str:
    """The Python that runs a script of `rivals`; the plain loop needs nothing that tuneloop does not have.

    tuneloop runs from the checkout: it gets the byte code that pip makes of whatever it installs, rivals included.
    """
    if script in RIVALS:
        return python_of(script, RIVALS[script], work)
    compileall.compile_dir(tuneloop.__path__[0], quiet=1)
    return python_of("tuneloop", OURS, work)


def sample(spec_path: Path, name: str, folder: Path, work: Path) -> Sample:
    """Puts the work to a contestant. Raises Failed when it does not get through."""
    spec, chosen = json.loads(spec_path.read_text("utf-8")), CONTESTANTS[name]
    if chosen.script == "tuneloop":
        run, said = _tuneloop(python(chosen.script, work), spec, spec_path, folder, chosen.variant)
    else:
        script = str(RIVALS_FOLDER / f"train_{chosen.script}.py")
        run = ran([python(chosen.script, work), script, str(spec_path), str(folder), chosen.variant], folder)
        said = json.loads(run.said)
    steps = _steps(spec, "by_length" if "length" in chosen.variant else "mixed", said["seconds"])
    if said.get("tokens", expected := [step["tokens"] for step in steps]) != expected:
        raise Failed("tuneloop did not train these rows in this order")
    epochs, counted = spec["epochs"], timed(WORKS[spec["work"]], steps)
    last = said["losses"][-(len(steps) // epochs) :] if epochs > 1 else said["losses"][-1:]
    return Sample(
        work=spec["work"],
        contestant=name,
        tokens_per_second=_rate(counted),
        flops_per_second=sum(step["flops"] for step in counted) / sum(step["seconds"] for step in counted),
        first_loss=said["losses"][0],
        last_loss=statistics.mean(last),
        first_step=said["first"] - run.started,
        seconds=run.seconds,
        peak_gib=run.peak / 2**30,
        others=run.others,
    )


def _tuneloop(
    executable: str, spec: dict[str, Any], spec_path: Path, folder: Path, variant: str
) -> tuple[Ran, dict[str, Any]]:
    """The command line on a recipe; what the rivals' scripts report is read from its metrics.jsonl."""
    path, metrics = folder / "recipe.yaml", "runs/*-tune-*/metrics.jsonl"
    chosen = recipe(spec, spec_path.parent / "mixed.messages.jsonl")
    if variant == "uncached":
        chosen["tune"]["memory"] = {"trunk_cache": False}
    path.write_text(json.dumps(chosen), "utf-8")  # JSON is YAML
    command = [executable, "-m", "tuneloop", "tune", str(path)]
    run = ran([*command, "--runs", str(folder / "runs")], folder, metrics)
    rows = [json.loads(line) for line in next(folder.glob(metrics)).read_text("utf-8").splitlines()]
    said = {"seconds": "seconds", "losses": "loss", "tokens": "tokens"}
    first = run.appeared or run.started + run.seconds
    return run, {"first": first, **{name: [row[column] for row in rows] for name, column in said.items()}}


def _steps(spec: dict[str, Any], order: str, seconds: list[float]) -> list[dict[str, float]]:
    """Real tokens, needed operations and seconds of each step; padding does not count."""
    with (Path(spec["rows"]) / f"{order}.jsonl").open(encoding="utf-8") as file:
        labels = [json.loads(line)["labels"] for line in file]
    if len(seconds) != spec["steps"]:
        raise Failed(f"{len(seconds)} steps instead of {spec['steps']}")
    steps = []
    for number, took in enumerate(seconds):
        start = number * spec["batch_size"] % len(labels)
        flat = [label for row in labels[start : start + spec["batch_size"]] for label in row]
        scored = sum(label != -100 for label in flat)
        flops = needed(spec["model"], spec["method"], len(flat), scored)
        steps.append({"tokens": len(flat), "flops": flops, "seconds": took})
    return steps


def _rate(steps: list[dict[str, float]]) -> float:
    return sum(step["tokens"] for step in steps) / sum(step["seconds"] for step in steps)
