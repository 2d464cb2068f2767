"""Packed layers answer as the plain ones do, and stay what they were for all who look at them."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from peft import LoraConfig, get_peft_model
from torch.utils._python_dispatch import TorchDispatchMode

from tuneloop.models.packed import PackedHead, PackedLinear, pack

BF16 = bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
DTYPES = [torch.float32, *([torch.bfloat16] if BF16 else [])]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rows", [(1, 40), (3, 5, 40), (0, 40)])
@pytest.mark.parametrize("bias", [True, False])
def test_products_are_those_of_the_plain_layer(dtype: torch.dtype, rows: tuple[int, ...], bias: bool) -> None:
    torch.manual_seed(0)
    layer = torch.nn.Linear(40, 24, bias=bias, dtype=dtype)
    x = torch.randn(*rows[:-1], 80, dtype=dtype)[..., ::2]  # not contiguous
    model = torch.nn.Sequential(layer)
    assert (pack(model), pack(model)) == (1, 0)
    assert isinstance(layer, PackedLinear) and layer.weight.shape == (24, 40)
    plain = F.linear(x, layer.weight.to_dense(), layer.bias)
    with torch.inference_mode():
        # the sum may be in another order, and a bias is added before the rounding
        torch.testing.assert_close(model(x), plain, rtol=1e-5 if dtype is torch.float32 else 2e-2, atol=1e-2)


@pytest.mark.parametrize("bias", [True, False])
def test_a_copy_is_a_plain_layer(bias: bool) -> None:
    layer = torch.nn.Linear(8, 4, bias=bias)
    again = copy.deepcopy(layer)
    pack(torch.nn.Sequential(layer))
    copied = copy.deepcopy(layer)
    assert type(copied) is torch.nn.Linear and copied.weight is not layer.weight
    x = torch.randn(3, 8)
    assert torch.equal(copied(x), again(x))


def packed_and_plain(tiny_model: Callable[..., Any], change: Callable[[Any], Any] = lambda model: model) -> list[Any]:
    ids = torch.arange(2, 30)[None]
    models = [change(tiny_model("llama", tie_word_embeddings=True)).eval() for _ in range(2)]
    assert pack(models[0]) > 10
    with torch.inference_mode():
        one, other = (model(input_ids=ids).logits for model in models)
    torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    return models


def test_a_model_answers_the_same_and_keeps_its_tied_weight(tiny_model: Callable[..., Any]) -> None:
    packed, _ = packed_and_plain(tiny_model)
    head = packed.get_output_embeddings()
    assert isinstance(head, PackedHead) and head.weight is packed.get_input_embeddings().weight
    assert torch.equal(copy.deepcopy(head).weight, head.weight)


@pytest.mark.parametrize("dora", [False, True])
def test_adapters_work_on_packed_layers(tiny_model: Callable[..., Any], dora: bool) -> None:
    def adapted(model: Any) -> Any:
        torch.manual_seed(3)
        config = LoraConfig(r=2, target_modules=["q_proj", "up_proj"], use_dora=dora, init_lora_weights=False)
        return get_peft_model(model, config)

    packed, _ = packed_and_plain(tiny_model, adapted)
    below = packed.base_model.model.model.layers[0].self_attn.q_proj.base_layer
    assert isinstance(below, PackedLinear) is not dora


def test_hooks_and_names_stay(tiny_model: Callable[..., Any]) -> None:
    model = tiny_model("llama")
    seen: list[str] = []
    name, layer = next((name, one) for name, one in model.named_modules() if isinstance(one, torch.nn.Linear))
    layer.register_forward_hook(lambda *_: seen.append(name))
    pack(model)
    model(input_ids=torch.tensor([[3, 4]]))
    assert seen == [name] and dict(model.named_modules())[name] is layer


class Rows(TorchDispatchMode):
    """Notes how many rows each packed product has."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if "_linear_pointwise" in str(func):
            self.seen.add(args[0].shape[:-1].numel())
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("dtype", DTYPES)
def test_few_numbers_of_rows_are_compiled_for(dtype: torch.dtype) -> None:
    """Each is kept by oneDNN with what it compiled: a service of prompts of all lengths grew by gigabytes."""
    torch.manual_seed(0)
    layer, plain = (torch.nn.Linear(24, 8, dtype=dtype) for _ in range(2))
    plain.load_state_dict(layer.state_dict())
    pack(torch.nn.Sequential(layer))
    with torch.inference_mode(), Rows() as rows:
        for count in [*range(1, 300), *range(301, 2600, 37)]:
            x = torch.randn(1, count, 24, dtype=dtype)
            made = layer(x)
            assert made.shape == (1, count, 8)
            torch.testing.assert_close(made, plain(x), rtol=2e-2, atol=1e-2)
        made = layer(x[0, :28].view(7, 4, 24))
        assert made.shape == (7, 4, 8)
    assert len(rows.seen) < 48
