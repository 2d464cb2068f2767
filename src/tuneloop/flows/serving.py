"""A service put together: model, engine, store, keys and the HTTP server; and keys made from the command line."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast
from urllib.parse import urlsplit

from rich.text import Text
from sqlalchemy import make_url

from tuneloop.core import digest, machine
from tuneloop.core import recipe as loading
from tuneloop.core.errors import ModelError, RecipeError
from tuneloop.core.plugins import Branch
from tuneloop.core.runs import resolve
from tuneloop.flows.chat import named
from tuneloop.flows.contestants import entrant
from tuneloop.flows.recipe import load_recipe
from tuneloop.generate.config import UpstreamConfig
from tuneloop.generate.live import Ask, LiveEngine, Served
from tuneloop.generate.whole import WholeAnswers
from tuneloop.models.config import ModelConfig
from tuneloop.serve.config import ServeConfig
from tuneloop.store import seal
from tuneloop.store import store as stores
from tuneloop.store.database import shown
from tuneloop.store.records import Key, Role
from tuneloop.track import console

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from tuneloop.serve.adapters import Gate
    from tuneloop.serve.front import Site
    from tuneloop.serve.service import Service


class _Settings(Branch):
    """What `--set serve.…` can change where there is no recipe."""

    serve: ServeConfig = ServeConfig()


def settings(recipe: Path | None, changes: Sequence[str], adapters: Mapping[str, str] | None = None) -> ServeConfig:
    """The branch `serve` of a recipe, or its defaults, with the changes of the command line. Raises RecipeError."""
    if recipe is not None:
        config = load_recipe(recipe, changes).serve
    else:
        config = loading.load(_Settings, loading.Source("the command line"), changes).serve
    return config.model_copy(update={"adapters": {**config.adapters, **(adapters or {})}})


def serve(model: str, runs: Path, config: ServeConfig, site: Callable[[Service], Site] | None = None) -> None:
    """Serves a model until it is told to stop; `site` makes the pages that stand beside the API.

    Raises TuneloopError for what stands in the way, before it listens.
    """
    from tuneloop.models.encoder import find_encoder
    from tuneloop.serve import server
    from tuneloop.serve.adapters import Roster, adapter_of
    from tuneloop.serve.auth import Doorkeeper
    from tuneloop.serve.service import PATIENCE, Service

    with stores.open(config.store, seal.load(config.secret_file), patience=PATIENCE) as kept:
        has_key = config.key_file is not None or kept.keys.any() is not None
        server.check(config, has_key=has_key)
        key_file = None if config.key_file is None else Path(config.key_file)
        doorkeeper = Doorkeeper(kept, open_to_all=not has_key, key_file=key_file)
        folders = {name: adapter_of(runs, resolve(runs, run).path.name) for name, run in config.adapters.items()}
        embedder = find_encoder(Path(config.encoder)) if config.encoder is not None else None
        with console.waiting(f"loading {model}"):
            name, engine, inside, gate = _engine(model, runs, config, folders)
            roster = Roster(engine, config.name or name, inside, gate)
            for public, folder in folders.items():
                roster.put(public, folder)
        service = Service(config, engine, roster, kept, doorkeeper, embedder, runs)
        _say(service, has_key, page=site is not None)
        listed = roster.listed()
        detail = {
            "model": model, "host": config.host, "digests": {name: served.digest for name, served in listed.items()},
            "facts": {name: dict(served.facts) for name, served in listed.items() if served.facts},
        }  # fmt: skip
        kept.audit("operator", "serve", detail)
        server.log_to_stderr()
        answering = server.Server(service, site(service) if site is not None else None)
        machine.libraries_are_here()  # where no model was loaded for it: a service lives long
        answering.run()


def create_key(config: ServeConfig, name: str, roles: Sequence[str]) -> dict[str, Any]:
    """Makes a key and shows it, for the only time. Raises StoreError for a role that there is not."""
    with stores.open(config.store, seal.load(config.secret_file)) as kept:
        key = kept.keys.create(name, cast("Sequence[Role]", roles))
        found = kept.keys.verify(key)
    assert found is not None
    console.say(Text.assemble("key ", (key, "bold"), f" ({', '.join(found.roles)}); it cannot be shown again"))
    return {"key": key, **_told(found)}


def list_keys(config: ServeConfig) -> list[dict[str, Any]]:
    """All keys, without what is secret of them."""
    with stores.open(config.store, seal.load(config.secret_file)) as kept:
        keys = kept.keys.list()
    for key in keys:
        state = "good" if _is_good(key) else "revoked" if key.revoked else "expired"
        console.say(Text(f"{key.id}  {state:<8} {' '.join(key.roles):<16} {key.name}"))
    return [_told(key) for key in keys]


def revoke_key(config: ServeConfig, id: str) -> dict[str, Any]:
    """Makes a key good for nothing, at once. Raises StoreError where there is none."""
    with stores.open(config.store, seal.load(config.secret_file)) as kept:
        kept.keys.revoke(id)
    console.say(f"key {id} is revoked")
    return {"id": id, "good": False}


def _is_good(key: Key) -> bool:
    return key.revoked is None and (key.expires is None or key.expires > datetime.now(UTC))


def _told(key: Key) -> dict[str, Any]:
    return {"id": key.id, "name": key.name, "roles": list(key.roles), "good": _is_good(key)}


def _say(service: Service, has_key: bool, page: bool) -> None:
    """What was decided for the user."""
    from tuneloop.serve.server import is_loopback

    config = service.config
    scheme = "https" if config.tls.certificate else "http"
    for name, served in service.roster.listed().items():
        console.say(Text.assemble("model   ", (name, "bold"), f"  {digest.short(served.digest)}"))
    address = f"{scheme}://{f'[{config.host}]' if ':' in config.host else config.host}:{config.port}"
    console.say(f"listens {address}/v1")
    if page:
        console.say(f"page    {address}/")
    console.say(f"store   {shown(make_url(config.store))}")
    if not has_key:
        console.say("keys    none: whoever works on this machine may chat and vote; `tuneloop keys create` ends that")
    elif not config.tls.certificate and not is_loopback(config.host):
        console.say("[yellow]keys travel in the clear: put a proxy with TLS in front, or set serve.tls.certificate[/]")


class Answers(NamedTuple):
    """Where answers come from: public name, engine, name within it, and what adapters must pass to be loaded."""

    name: str
    engine: LiveEngine
    inside: str
    gate: Gate | None = None


def _engine(model: str, runs: Path, config: ServeConfig, adapters: Mapping[str, Path]) -> Answers:
    """Of a run or base, or of a server's model."""
    behind = urlsplit(model).scheme in ("http", "https")
    if config.quantize.scheme != "none" and (behind or config.engine == "llama_cpp"):
        raise RecipeError(
            "serve.quantize.scheme is for a model that transformers computes in this process: leave it out"
        )
    if behind and "engine" in config.model_fields_set:
        raise RecipeError(f"serve.engine is for a model in this process; {model} is a server: leave it out")
    if behind:
        return _upstream(model, config.upstream)
    if "upstream" in config.model_fields_set:
        raise RecipeError(f"serve.upstream is for a server: `tuneloop serve URL`; '{model}' is served in this process")
    if config.engine == "llama_cpp":
        return _llama_cpp(Path(model))
    return _inside(model, runs, config, adapters)


def _upstream(url: str, config: UpstreamConfig) -> Answers:
    """The engine of a server's model, and what of it is not as with a model of ours."""
    from tuneloop.generate.upstream import UpstreamEngine

    engine = UpstreamEngine(url, config)
    (served,) = engine.models()
    how = f"{served.name} at {engine.url} ({served.facts['dialect']}), which renders prompts by its own chat template"
    console.decided("answers", how)
    return Answers(Path(served.name).name, engine, served.name)  # llama.cpp calls a model by its file


def _llama_cpp(path: Path) -> Answers:
    """The engine of a .gguf file."""
    if path.suffix != ".gguf" or not path.is_file():
        raise ModelError(f"serve.engine: llama_cpp serves a .gguf file, and '{path}' is none; leave the setting out")
    from tuneloop.generate.llama_cpp import LlamaCppEngine
    from tuneloop.models.gguf import tokenizer_folder
    from tuneloop.render.load import find_renderer

    engine = LlamaCppEngine(path, find_renderer(ModelConfig(base=str(tokenizer_folder(path)))), path.stem)
    console.decided("answers", f"one at a time, by llama.cpp; context {engine.models()[0].context} tokens")
    return Answers(path.stem, engine, path.stem)


def _inside(model: str, runs: Path, config: ServeConfig, adapters: Mapping[str, Path]) -> Answers:
    """A run or base in this process.

    A plain LoRA lies beside the base, so that others can be served with it; any other adapter belongs to the model,
    which then gives one whole answer at a time.
    """
    import torch

    from tuneloop.generate.batching import ContinuousEngine
    from tuneloop.generate.lean import side_by_side
    from tuneloop.models.adapters import read_record
    from tuneloop.models.find import find_base
    from tuneloop.models.load import load_model
    from tuneloop.models.packed import pack
    from tuneloop.models.precision import pick_dtype
    from tuneloop.render.load import renderer_of

    path = named(model, runs)
    name, base = Path(path).name, find_base(ModelConfig(base=path))
    record = read_record(base.adapter) if base.adapter is not None else None
    if record is not None and record.quantization is not None:
        return Answers(name, _whole(path, name, "its base is held in fewer bits", config), name)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    plain, renderer = replace(base, adapter=None), renderer_of(base)
    dtype, _ = pick_dtype(base.config.dtype, device)

    gate = None
    if config.quantize.scheme != "none":
        from tuneloop.flows import gate as gates

        gate = gates.Gate(path, plain, renderer, config.quantize.scheme, config.quantize)

    def load() -> PreTrainedModel:
        model = load_model(plain, dtype, seed=0, device=device)
        if gate is not None:
            gate.hold(model, [base.adapter, *adapters.values()])
        pack(model)
        side_by_side(model)
        return model

    inside = name if base.adapter is None else f"{name} without adapter"
    engine = ContinuousEngine(load, renderer, plain, inside, facts=gate and gate.facts)
    if base.adapter is None:
        return Answers(name, engine, inside, gate)
    try:
        engine.load(name, str(base.adapter))
    except ModelError as error:
        engine.close()
        return Answers(name, _whole(path, name, str(error), config), name)
    return Answers(name, engine, name, gate)


def _whole(base: str, name: str, why: str, config: ServeConfig) -> LiveEngine:
    """An engine for what cannot be batched. Raises ModelError where fewer bits are asked for, which it cannot give."""
    if config.quantize.scheme != "none":
        raise ModelError(
            f"{name} cannot be served in {config.quantize.scheme}: {why}. `tuneloop merge` makes a model of it that "
            "can, or set serve.quantize.scheme: none"
        )
    console.decided("answers", f"one at a time, whole and greedy: {why}")
    contestant = ExitStack().enter_context(entrant(ModelConfig(base=base), seed=0)())

    def answer(ask: Ask) -> str:
        wanted = {
            "temperature": ask.decoding.temperature > 0, "response_format": ask.schema is not None,
            "logprobs": ask.logprobs is not None,
        }  # fmt: skip
        if refused := [field for field, given in wanted.items() if given]:
            raise ModelError(f"'{refused[0]}' is not supported by this engine")
        (completion,) = contestant.engine.answer([ask.request], ask.decoding)
        if completion.refused is not None:
            raise ModelError(completion.refused)
        return completion.text

    return WholeAnswers(answer, Served(name, contestant.engine.identity, None), places=1)
