"""The renderer of a base: its tokenizer and template, and the end tokens that its generation config names."""

from __future__ import annotations

from tuneloop.models import safety
from tuneloop.models.config import ModelConfig
from tuneloop.models.find import Base, find_base
from tuneloop.models.tokenizer import is_tokenizer_alone, load_tokenizer, load_tokenizer_alone
from tuneloop.render.template import Renderer


def renderer_of(base: Base) -> Renderer:
    """The renderer of a base that was found, for training, evaluation and chat alike."""
    named = safety.read_config(base.path / "generation_config.json").get("eos_token_id")
    ends = [] if named is None or base.is_new else named if isinstance(named, list) else [named]
    return Renderer(load_tokenizer(base), stop_ids=ends)


def find_renderer(config: ModelConfig) -> Renderer:
    """The renderer of a recipe's model; a folder with a tokenizer alone will do."""
    if is_tokenizer_alone(config):
        return Renderer(load_tokenizer_alone(config))
    return renderer_of(find_base(config))
