"""`tuneloop serve`: an OpenAI-compatible service."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tuneloop.cli.options import RUNS, AsJson, RunsFolder, Settings, emit

if TYPE_CHECKING:
    from tuneloop.serve.front import Site
    from tuneloop.serve.service import Service

Model = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="A tune run (folder, part of its name, or latest), a model folder, any base, or the URL of a server.",
        show_default=False,
    ),
]
Adapters = Annotated[
    list[str], typer.Option("--adapter", metavar="NAME=RUN", help="Serve a run's adapter under a name, too (several).")
]
Host = Annotated[str | None, typer.Option("--host", metavar="ADDRESS", help="Listen there; default: 127.0.0.1.")]
Port = Annotated[int | None, typer.Option("--port", help="Listen on this port; default: 8000.")]
KeyFile = Annotated[
    Path | None,
    typer.Option("--key-file", metavar="FILE", help="Keys for chat and feedback, one a line (see also tuneloop keys)."),
]
Recipe = Annotated[
    Path | None, typer.Option("--recipe", metavar="RECIPE", help="Take the settings from its branch `serve`.")
]


def command(
    model: Model,
    adapter: Adapters = [],
    host: Host = None,
    port: Port = None,
    key_file: KeyFile = None,
    recipe: Recipe = None,
    settings: Settings = [],
    runs: RunsFolder = RUNS,
    as_json: AsJson = False,
) -> None:
    """Serve a model to OpenAI's clients, on this machine alone unless told otherwise.

    Examples:

      tuneloop serve latest

      tuneloop serve latest --adapter clinic=7f3a --port 9000 --set serve.limits.max_tokens=512

      tuneloop serve http://127.0.0.1:8001/v1        (vLLM, SGLang, llama.cpp or any OpenAI-compatible server)

      tuneloop serve model.gguf --set serve.engine=llama_cpp
    """
    from tuneloop.core.errors import RecipeError
    from tuneloop.flows import serving

    changes = [f"serve.{key}={value}" for key, value in (("host", host), ("port", port)) if value is not None]
    changes += [f"serve.key_file={key_file}"] if key_file is not None else []
    adapters: dict[str, str] = {}
    for one in adapter:
        name, _, run = one.partition("=")
        if not (name and run):
            raise RecipeError(f"--adapter {one}: write NAME=RUN")
        adapters[name] = run
    config = serving.settings(recipe, [*settings, *changes], adapters)
    serving.serve(model, runs, config, _site if config.page else None)
    emit({"served": model}, as_json)


def _site(service: "Service") -> "Site":
    from tuneloop.web.site import Site  # NiceGUI takes most of a second

    return Site(service)
