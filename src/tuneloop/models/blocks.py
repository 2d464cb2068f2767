"""Where the parts of a causal language model are, found by structure and not by name: layers, embeddings, head, norm.

Knows nothing of training. A block is one decoder layer.
"""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn
from transformers import PreTrainedModel

from tuneloop.core.errors import ModelError


def blocks_of(model: PreTrainedModel) -> tuple[str, nn.ModuleList]:
    """Name and list of the model's decoder layers, lowest first. Raises ModelError where there is no such list."""
    count = model.config.get_text_config().num_hidden_layers
    for name, module in model.named_modules():  # parents first: a list of as many experts stands further down
        if isinstance(module, nn.ModuleList) and len(module) == count:
            return name, module
    raise ModelError(f"{type(model).__name__} has no list of its {count} layers, so they cannot be told apart")


def tied(model: PreTrainedModel) -> bool:
    """Whether the output head and the token embeddings are one tensor."""
    head, embeddings = model.get_output_embeddings(), model.get_input_embeddings()
    return head is not None and head.weight is embeddings.weight


def parts(model: PreTrainedModel) -> Iterator[tuple[str, nn.Parameter, int | str]]:
    """Each parameter once, with its name and where it belongs: a layer's number, 'embeddings', 'head' or 'norm'.

    'norm' is what stands between the last layer and the head. A head tied to the embeddings counts as 'embeddings'.
    """
    path = blocks_of(model)[0] + "."
    embeddings = {
        f"{name}.{own}"
        for name, module in model.named_modules()
        if isinstance(module, nn.Embedding) and not name.startswith(path)
        for own, _ in module.named_parameters()
    }
    head = model.get_output_embeddings()
    of_head = {id(p) for p in head.parameters()} if head is not None else set()
    for name, parameter in model.named_parameters():
        if name.startswith(path):
            yield name, parameter, int(name[len(path) :].split(".", 1)[0])
        elif name in embeddings:
            yield name, parameter, "embeddings"
        else:
            yield name, parameter, "head" if id(parameter) in of_head else "norm"
