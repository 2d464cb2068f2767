"""The recipe's branch `data.mix`: what an epoch of training is made of, and mix.json, which tells it to `tune`.

No row is drawn here: train.jsonl holds every row once, and `tune` draws each epoch anew.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, PositiveInt, model_validator

from tuneloop.core.errors import DataError
from tuneloop.core.plugins import Branch, did_you_mean


class Replay(Branch):
    """General rows beside the domain's, against forgetting."""

    source: str
    """The source of general rows: its name, its path or its file name."""
    ratio: float = Field(gt=0, lt=1)
    """Its share of each epoch's rows; 0.1 is one row in ten. Each epoch takes other rows until all have come."""


class MixConfig(Branch):
    """What an epoch is made of; by default every training row once. Validation and test rows are never mixed."""

    weights: dict[str, Annotated[float, Field(ge=0, allow_inf_nan=False)]] = Field(default_factory=dict)
    """Source: its relative share of an epoch's rows, for every source but the replayed one. A source is its name, its
    path or its file name; 0 leaves it out. {a.jsonl: 3, b.jsonl: 1} takes three rows of a for one of b."""
    temperature: float = Field(default=1.0, ge=0.1, le=1000)
    """Instead of weights: a source of n rows has a share in proportion to n^(1/temperature). 1: by size; larger gives
    small sources more; a very large one gives all sources the same."""
    replay: Replay | None = None
    """A general source, of which each epoch takes a fixed share."""
    epoch_rows: PositiveInt | None = None
    """Rows of an epoch; by default as many as the sources with a share have, plus the replayed ones."""

    @model_validator(mode="after")
    def _one_way_to_share(self) -> Self:
        if self.weights and self.temperature != 1:
            raise ValueError("give weights (the shares) or temperature (shares from the sizes), not both")
        if self.weights and not any(self.weights.values()):
            raise ValueError("all weights are 0: no row would be drawn")
        return self

    @property
    def mixes(self) -> bool:
        """Whether an epoch is anything but every row once."""
        return self != MixConfig()


def write_mix(config: MixConfig, folder: Path, sources: Mapping[str, str]) -> None:
    """Writes mix.json for `tune` beside train.jsonl; nothing where an epoch is every row once.

    `sources`: label of each source of the recipe, in order → `origin.source` of its rows.
    """
    if not config.mixes:
        return
    from tuneloop.forward import mixing

    found = check_mix(config, sources)
    replay = config.replay
    mix = mixing.Mix(
        names=_names(sources),
        weights={found[name]: weight for name, weight in config.weights.items()},
        temperature=config.temperature,
        replay=found[replay.source] if replay else None,
        ratio=replay.ratio if replay else 0.0,
        epoch_rows=config.epoch_rows,
    )
    mixing.write(mix, folder)


def check_mix(config: MixConfig, sources: Mapping[str, str]) -> dict[str, str]:
    """The sources that the mix names: name in the mix → `origin.source`. `sources` as in write_mix.

    Raises DataError (a ValueError, so that the recipe can say where) for a name that fits none or several, a source
    without a weight, a replay without another source, and one file named as two sources.
    """
    if not config.mixes:
        return {}
    twice = next((path for path, count in Counter(sources.values()).items() if count > 1), None)
    if twice is not None:
        labels = " and ".join(f"'{label}'" for label, path in sources.items() if path == twice)
        raise DataError(f"mix: {labels} are the same file {twice}, whose rows cannot be told apart; name it once")
    replayed = _find(config.replay.source, sources) if config.replay else None
    weighed = {name: _find(name, sources) for name in config.weights}
    if replayed is not None and len(sources) == 1:
        raise DataError("mix.replay: there is no other source beside it; give the domain's rows as a source too")
    if replayed in weighed.values():
        raise DataError("mix.weights: the replayed source has no weight; its share is mix.replay.ratio")
    if len(set(weighed.values())) < len(weighed):
        raise DataError(f"mix.weights: one source is named twice among {', '.join(weighed)}")
    missing = [label for label, path in sources.items() if path not in (*weighed.values(), replayed)]
    if weighed and missing:
        raise DataError(f"mix.weights: no weight for {', '.join(missing)}; 0 leaves a source out")
    return weighed | ({config.replay.source: replayed} if config.replay and replayed is not None else {})


def _find(name: str, sources: Mapping[str, str]) -> str:
    """The source that goes by that name: its label, else its path, else its file name."""
    if name in sources:
        return sources[name]
    fitting = [path for path in sources.values() if name in (path, Path(path).name)]
    if len(fitting) == 1:
        return fitting[0]
    known = f"known: {', '.join(sources)}"
    if fitting:
        raise DataError(f"mix: '{name}' fits {len(fitting)} sources; give them a `name` each; {known}")
    raise DataError(f"mix: no source '{name}'{did_you_mean(name, sources)}; {known}")


def _names(sources: Mapping[str, str]) -> dict[str, str]:
    """`origin.source` → what to call it: the label, or of a path the file name where no other source is called so."""
    short = {path: Path(path).name if label == path else label for label, path in sources.items()}
    alike = Counter(short.values())
    return {path: short[path] if alike[short[path]] == 1 else label for label, path in sources.items()}
