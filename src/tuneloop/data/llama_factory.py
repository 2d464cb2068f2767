"""LLaMA-Factory's `dataset_info.json` as a source: its entries become sources of our own, read as that tool reads them.

The keys and their defaults are those of its `data/parser.py`. What it would lose is in `llama_factory_lints`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from tuneloop.core import jsonl
from tuneloop.core.conversation import JsonObject
from tuneloop.core.errors import DataError
from tuneloop.core.plugins import did_you_mean
from tuneloop.data.config import SourceConfig
from tuneloop.data.formats import FORMATS
from tuneloop.data.formats.preference import ANSWERS
from tuneloop.data.reading.folder import ALL
from tuneloop.data.reading.place import HUB, split_part

INDEX = "dataset_info.json"
COLUMNS: dict[str, str | None] = {
    "prompt": "instruction", "query": "input", "response": "output", "history": None,
    "messages": "conversations", "system": None, "tools": None, "images": None, "videos": None, "audios": None,
    "chosen": None, "rejected": None, "kto_tag": None,
}  # fmt: skip
TAGS = {
    "role_tag": "from", "content_tag": "value", "user_tag": "human", "assistant_tag": "gpt",
    "observation_tag": "observation", "function_tag": "function_call", "system_tag": "system",
}  # fmt: skip
"""What stands for a role or a key where an entry names none. One that names some leaves the others without."""
ROLES = {
    "user_tag": "user", "assistant_tag": "assistant", "observation_tag": "tool", "function_tag": "function_call",
    "system_tag": "system",
}  # fmt: skip
KEYS = (
    "file_name", "hf_hub_url", "ms_hub_url", "om_hub_url", "script_url", "cloud_file_name", "formatting", "ranking",
    "subset", "split", "folder", "num_samples", "revision", "columns", "tags",
)  # fmt: skip
MEDIA = ("images", "videos", "audios")
ELSEWHERE = {
    "ms_hub_url": "on ModelScope", "om_hub_url": "on Modelers", "cloud_file_name": "in cloud storage",
    "script_url": "behind a script, which tuneloop does not run",
}  # fmt: skip


@dataclass(frozen=True)
class Entry:
    """One data set of the file. A column or tag that is None is not read."""

    name: str
    path: str
    formatting: str
    columns: Mapping[str, str | None]
    tags: Mapping[str, str | None]
    listed: bool
    """Whether the entry has `columns`, which leaves those it does not name unread."""
    num_samples: int | None
    ranking: bool = False
    """Whether its rows have a better and a worse answer."""


def is_index(path: str) -> bool:
    """Whether a source's path names such a file."""
    return Path(split_part(path)[0]).name == INDEX


def expand(path: str) -> list[SourceConfig]:
    """The sources that `…/dataset_info.json#name1,name2` means, each named after its entry. Raises DataError."""
    return [source_of(entry) for entry in entries(path)]


def expand_all(sources: Sequence[SourceConfig]) -> list[SourceConfig]:
    """Sources with each dataset_info.json among them replaced by its entries. Raises DataError.

    `encoding`, `train_only`, `limit` and `sample` of such a source hold for each of its entries; format and columns are
    theirs.
    """
    out: list[SourceConfig] = []
    for source in sources:
        if not is_index(source.path):
            out.append(source)
            continue
        if source.columns or source.template or FORMATS.name_of(source.format) != "auto":
            raise DataError(f"{source.path}: its entries say how they are read; leave out format, columns and template")
        own: JsonObject = {"encoding": source.encoding, "train_only": source.train_only}
        if source.limit or source.sample:
            own |= {"limit": source.limit, "sample": source.sample}
        out += [one.model_copy(update=own) for one in expand(source.path)]
    return out


def entries(path: str) -> list[Entry]:
    """The entries named behind the #. Raises DataError."""
    name, part = split_part(path)
    file = Path(name)
    if not file.is_file():
        raise DataError(f"{name}: no such file")
    index = jsonl.read(file)
    if not isinstance(index, dict) or "features" in index:
        raise DataError(f"{name} is no list of data sets; for one that `datasets` saved, give its folder {file.parent}")
    wanted = [one.strip() for one in part.split(",") if one.strip()] if part else []
    if not wanted and len(index) != 1:
        names = ", ".join(list(index)[:12])
        raise DataError(f"{path}: say which data sets are meant, as {name}#name1,name2; it lists {names}")
    for one in wanted:
        if one not in index:
            raise DataError(f"{name} lists no data set '{one}'{did_you_mean(one, index)}")
    return [_entry(one, index[one], file) for one in wanted or index]


def source_of(entry: Entry) -> SourceConfig:
    """An entry as a source."""
    columns = {role: column for role in MEDIA if (column := entry.columns[role]) is not None}
    reader: dict[str, JsonObject]
    if entry.ranking:
        reader = {"preference": _preference(entry)}
    elif entry.formatting == "alpaca":
        asked, answered = entry.columns["prompt"], entry.columns["response"]
        if answered is None:  # pre-training: the prompt is the document
            reader, columns = {"text": {}}, {**columns, "text": asked or ""}
        else:
            names = {"instruction": "prompt", "input": "query", "output": "response", "system": "system",
                     "history": "history", "tools": "tools"}  # fmt: skip
            reader = {"alpaca": {option: entry.columns[role] for option, role in names.items()}}
    else:
        options = {
            "column": entry.columns["messages"], "system": entry.columns["system"], "tools": entry.columns["tools"],
            **_turn_keys(entry),
        }  # fmt: skip
        reader = {"sharegpt" if entry.formatting == "sharegpt" else "messages": options}
    return SourceConfig(
        path=entry.path, format=FORMATS.make(reader), columns=columns, sample=entry.num_samples, name=entry.name
    )


def _preference(entry: Entry) -> JsonObject:
    """Options of the format that reads pairs."""
    alpaca = entry.formatting == "alpaca"
    asked = [entry.columns[role] for role in (("prompt", "query") if alpaca else ("messages",))]
    options: JsonObject = {role: entry.columns[role] for role in ("chosen", "rejected", "system", "tools")}
    options |= {"prompt": [column for column in asked if column], "history": entry.columns["history"]}
    return options if alpaca else {**options, "history": None, **_turn_keys(entry)}


def _turn_keys(entry: Entry) -> JsonObject:
    """What the turns' keys and roles are called."""
    return {
        "role": entry.tags["role_tag"], "content": entry.tags["content_tag"],
        "roles": {tag: role for key, role in ROLES.items() if (tag := entry.tags[key]) is not None},
    }  # fmt: skip


def _entry(name: str, stated: Any, file: Path) -> Entry:
    where = f"{file}: '{name}'"
    if not isinstance(stated, dict):
        raise DataError(f"{where} is no object")
    for key in stated:
        if key not in KEYS and (hint := did_you_mean(key, KEYS)):
            raise DataError(f"{where} has the unknown key '{key}'{hint}, which LLaMA-Factory would pass over")
    formatting = stated.get("formatting", "alpaca")
    if formatting not in ("alpaca", "sharegpt", "openai"):
        raise DataError(f"{where}: formatting '{formatting}' is none of alpaca, sharegpt, openai")
    columns = _stated(stated, "columns", COLUMNS, where)
    tags = _stated(stated, "tags", TAGS, where)
    if columns["kto_tag"] is not None:
        raise DataError(f"{where} holds single judgements (KTO), not conversations or pairs to train on; leave it out")
    needed = ["messages"] if formatting != "alpaca" else ["prompt"] if columns["response"] is None else []
    ranking = bool(stated.get("ranking"))
    needed += list(ANSWERS) if ranking else []
    missing = [key for key in needed if columns[key] is None]
    missing += [key for key in ("role_tag", "content_tag") if formatting != "alpaca" and tags[key] is None]
    if missing:
        raise DataError(f"{where} does not name {', '.join(missing)} among its columns and tags")
    path = _path(stated, file, where)
    return Entry(name, path, formatting, columns, tags, "columns" in stated, stated.get("num_samples"), ranking)


def _stated(stated: JsonObject, key: str, default: Mapping[str, str | None], where: str) -> Mapping[str, str | None]:
    """The defaults, or what the entry names and None for all else: LLaMA-Factory does not mix the two."""
    if key not in stated:
        return default
    given = stated[key]
    if not isinstance(given, dict):
        raise DataError(f"{where}: {key} is no object")
    for name in given:
        if name not in default:
            known = ", ".join(default)
            raise DataError(f"{where}: {key} has the unknown key '{name}'{did_you_mean(name, default)}; known: {known}")
    return {name: given.get(name) for name in default}


def _path(stated: JsonObject, file: Path, where: str) -> str:
    """The path of our source. Raises DataError for what stands neither beside the file nor on the hub."""
    split = stated.get("split", "train")
    if "[" in split:
        raise DataError(f"{where}: a part of a split ({split}) is not read; use num_samples, or limit of a source")
    if "hf_hub_url" in stated:
        options = {"config": "subset", "folder": "folder", "revision": "revision"}
        query = urlencode({option: stated[key] for option, key in options.items() if stated.get(key)}, safe="/")
        return f"{HUB}{stated['hf_hub_url']}{'?' if query else ''}{query}#{split}"
    for key, place in ELSEWHERE.items():
        if key in stated:
            raise DataError(f"{where} stands {place} ({stated[key]}): download it and name it as file_name")
    if "file_name" not in stated:
        raise DataError(f"{where} names no file_name and no hf_hub_url")
    if split != "train":
        raise DataError(f"{where}: a file has no split '{split}'; leave split out")
    path = file.parent / stated["file_name"]
    return f"{path}#{ALL}" if path.is_dir() else str(path)
