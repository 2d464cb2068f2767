"""Finds the base that a recipe names: checked, with digests and licence. Nothing is loaded yet.

Knows nothing of how known bases are fetched (bases.py) nor of adapters' insides (adapters.py).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tuneloop.core import digest
from tuneloop.core.errors import ModelError
from tuneloop.core.plugins import did_you_mean
from tuneloop.models import bases, cache, checks, hub, safety
from tuneloop.models.config import ModelConfig

Architecture = dict[str, Any]


@dataclass(frozen=True)
class Base:
    """A base that was found and checked. Nothing is loaded yet.

    `digest` covers config, weights, tokenizer, template and adapter; `weights_digest` config and weights alone, which
    is what an adapter fits to. For a new architecture `path` is the folder of its tokenizer.
    """

    name: str
    path: Path
    digest: str
    weights_digest: str
    config: ModelConfig
    licence: str | None = None
    adapter: Path | None = None
    chat_template: str | None = None
    decisions: tuple[str, ...] = field(default=(), compare=False)

    @property
    def is_new(self) -> bool:
        """Whether its weights are random."""
        return self.config.architecture is not None


def find_base(config: ModelConfig) -> Base:
    """The base of a recipe, its folder checked. Raises ModelError saying what is wrong and what to type next."""
    template = read_template(config)
    if config.architecture is not None:
        assert config.tokenizer is not None
        return _new_base(config, config.architecture, Path(config.tokenizer), template)
    assert config.base is not None
    folder, name, licence, decisions = _resolve(config.base, config.revision)
    if (folder / "run.json").is_file() or (folder / "adapter_config.json").is_file():
        return _from_run(config, folder, template)
    checks.check_model_folder(folder)
    weights = cache.digest_of(folder, (*cache.CONFIG, *cache.WEIGHTS))
    tokenizer = cache.digest_of(folder, cache.TOKENIZER)
    adapter = Path(config.adapter) if config.adapter is not None else None
    return Base(
        name, folder, _whole_digest(weights, tokenizer, template, adapter), weights, config,
        licence or _licence(folder), adapter, template, tuple(decisions),
    )  # fmt: skip


def _resolve(name: str, revision: str | None) -> tuple[Path, str, str | None, list[str]]:
    """(local folder, name for people, licence where known, decisions) of what `base:` says."""
    known, known_names = bases.known(name), ", ".join(bases.names())
    path = Path(name)
    if revision is not None and (known is not None or path.exists()):
        raise ModelError(f"model.revision: '{revision}' has no meaning for base '{name}': only hub ids have revisions")
    if known is not None:
        return bases.folder_of(known), name, known.licence, []
    if path.is_file() and path.suffix == ".gguf":
        from tuneloop.models import gguf  # brings torch in

        folder = gguf.import_file(path)
        return folder, path.stem, None, [f"{path.name} was converted to a standard folder: {folder}"]
    if path.is_file():
        raise ModelError(f"base '{name}' is a file; a base is a folder, a .gguf file, a hub id or one of {known_names}")
    if path.is_dir():
        return path.resolve(), path.resolve().name, None, []
    if hub.is_id(name):
        folder = hub.fetch(name, revision)
        return folder, name, None, [f"{name} comes from the hub, snapshot {folder.name}"]
    hint = did_you_mean(name, bases.names())
    raise ModelError(
        f"no base '{name}'{hint}: neither a folder, a .gguf file or a hub id (org/name), nor one of {known_names}"
    )


def _from_run(config: ModelConfig, folder: Path, template: str | None) -> Base:
    """The base behind a run of ours, or behind the adapter folder in it."""
    from tuneloop.models import adapters

    name = folder.parent.parent.name if folder.name == "adapter" and folder.parent.name == "out" else folder.name
    if (folder / "run.json").is_file():
        if (folder / "out" / "model").is_dir():
            found = find_base(config.model_copy(update={"base": str(folder / "out" / "model")}))
            return replace(found, name=name, config=config)
        folder = folder / "out" / "adapter"
        if not (folder / "adapter_config.json").is_file():
            raise ModelError(
                f"{folder.parent.parent}: this run has no model to load (neither out/model nor out/adapter)"
            )
    if config.adapter is not None:
        raise ModelError(
            f"base '{config.base}' is an adapter already; name its base in model.base to use {config.adapter}"
        )
    record = adapters.read_record(folder)
    if record is None:
        told = safety.read_config(folder / "adapter_config.json").get("base_model_name_or_path")
        raise ModelError(
            f"{folder} is an adapter, not a model. Set model.base to the model it was made for (it says: {told}) and "
            f"model.adapter to this folder."
        )
    inner = ModelConfig.model_validate(record.config)
    found = find_base(
        inner.model_copy(update={"dtype": config.dtype, "adapter": None, "chat_template": config.chat_template})
    )
    adapters.check_belongs(folder, found)
    if template is None and record.chat_template is not None:
        template = record.chat_template
    whole = _whole_digest(found.weights_digest, cache.digest_of(found.path, cache.TOKENIZER), template, folder)
    return Base(
        name, found.path, whole, found.weights_digest, found.config, found.licence, folder, template,
        (*found.decisions, f"{name} is an adapter on {found.name}"),
    )  # fmt: skip


def _new_base(config: ModelConfig, architecture: Architecture, folder: Path, template: str | None) -> Base:
    if not folder.is_dir():
        raise ModelError(f"model.tokenizer: no folder '{folder}'")
    safety.refuse_code(folder)
    checks.check_tokenizer_files(folder)
    tokenizer = cache.digest_of(folder, cache.TOKENIZER)
    weights = digest.of_value({"architecture": architecture, "tokenizer": tokenizer})
    name = f"new-{architecture['model_type']}"
    return Base(name, folder, _whole_digest(weights, tokenizer, template, None), weights, config, None, None, template)


def _whole_digest(weights: str, tokenizer: str, template: str | None, adapter: Path | None) -> str:
    parts: dict[str, Any] = {"weights": weights, "tokenizer": tokenizer}
    if template is not None:
        parts["chat_template"] = template
    if adapter is not None:
        parts["adapter"] = cache.digest_of(adapter, ("adapter_config.json", "*.safetensors"))
    return digest.of_value(parts)


def read_template(config: ModelConfig) -> str | None:
    """The chat template that the recipe puts in the tokenizer's place."""
    if config.chat_template is None:
        return None
    path = Path(config.chat_template)
    if not path.is_file():
        raise ModelError(f"model.chat_template: no file '{path}'")
    if path.stat().st_size > safety.LARGEST_TEMPLATE:
        raise ModelError(f"model.chat_template: {path} is larger than 1 MiB")
    try:
        return path.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise ModelError(f"model.chat_template: {path} is not UTF-8 ({error})") from error


def _licence(folder: Path) -> str | None:
    """The licence that our record of an import or a model card's front matter states."""
    recorded = safety.read_config(folder / "tuneloop.json").get("licence")
    if recorded is not None:
        return str(recorded)
    card = folder / "README.md"
    lines = card.read_text("utf-8", errors="replace").splitlines()[:80] if card.is_file() else []
    if not lines or lines[0].strip() != "---":
        return None
    for line in lines[1:]:
        if line.strip() == "---":
            return None
        if line.startswith("license:"):
            return line.partition(":")[2].strip() or None
    return None
