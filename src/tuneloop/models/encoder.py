"""Texts to vectors, by a sentence encoder in a folder as sentence-transformers writes it. Knows nothing of their use.

B: texts of a batch, T: tokens of the longest of them, D: dimensions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np

from tuneloop.core import jsonl
from tuneloop.core.errors import ModelError
from tuneloop.models import safety

Pooling = Literal["mean", "cls", "lasttoken"]
POOLINGS: dict[str, Pooling] = {
    "pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "cls", "pooling_mode_lasttoken": "lasttoken",
}  # fmt: skip
KNOWN = ("Transformer", "Pooling", "Normalize")
BATCH_TOKENS = 8_192
"""Tokens of a batch, padding included."""


@dataclass(frozen=True)
class Encoder:
    """An encoder folder whose settings fit; its weights are read when the first texts come."""

    folder: Path
    pooling: Pooling
    max_tokens: int | None
    """Longer texts are cut there; None leaves it to the tokenizer."""
    prefix: str
    """What stands before every text: the folder's own default prompt."""
    lower: bool

    @property
    def name(self) -> str:
        return self.folder.name

    def encode(self, texts: Sequence[str], advance: Callable[[int], None] = lambda texts: None) -> np.ndarray:
        """float32 [N, D], each of length 1, in the order of the texts; `advance` is told of every batch done.

        Raises ModelError where the weights cannot be read.
        """
        import torch

        if not texts:
            return np.zeros((0, self._model.config.hidden_size), np.float32)
        given = [self.prefix + (text.lower() if self.lower else text) for text in texts]
        ids = cast("list[list[int]]", self._tokenizer(given, truncation=True, max_length=self._longest)["input_ids"])
        ids = [row or [self._pad] for row in ids]  # a tokenizer without special tokens makes nothing of an empty text
        order = np.argsort([len(row) for row in ids], kind="stable")[::-1].tolist()  # the most memory is used first
        found: list[np.ndarray] = []
        begin = 0
        while begin < len(order):
            size = max(1, BATCH_TOKENS // max(1, len(ids[order[begin]])))
            batch = order[begin : begin + size]
            with torch.inference_mode():
                found.append(self._embed([ids[row] for row in batch]))
            begin += len(batch)
            advance(len(batch))
        out = np.concatenate(found)
        out[order] = out.copy()
        return out

    def lengths(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text, as far as they are read."""
        given = [self.prefix + (text.lower() if self.lower else text) for text in texts]
        return [len(ids) for ids in self._tokenizer(given, truncation=True, max_length=self._longest)["input_ids"]]

    def _embed(self, rows: Sequence[Sequence[int]]) -> np.ndarray:
        import torch
        from torch.nn.functional import normalize

        sizes = torch.tensor([len(row) for row in rows])
        mask_BT = (torch.arange(int(sizes.max())) < sizes[:, None]).to(self._model.device)
        ids_BT = torch.full(mask_BT.shape, self._pad)
        for number, row in enumerate(rows):
            ids_BT[number, : len(row)] = torch.tensor(row)
        given = {"input_ids": ids_BT.to(mask_BT.device), "attention_mask": mask_BT.long()}
        hidden_BTD = self._model(**given).last_hidden_state.float()
        if self.pooling == "mean":
            pooled_BD = (hidden_BTD * mask_BT[..., None]).sum(1) / mask_BT.sum(1, keepdim=True).clamp(min=1)
        else:
            place_B = torch.zeros_like(sizes) if self.pooling == "cls" else sizes - 1
            pooled_BD = hidden_BTD[torch.arange(len(rows)), place_B]
        return normalize(pooled_BD, dim=-1).cpu().numpy()

    @cached_property
    def _tokenizer(self) -> Any:
        from tuneloop.models.tokenizer import tokenizer_from

        return tokenizer_from(self.folder)

    @property
    def _pad(self) -> int:
        return self._tokenizer.pad_token_id or 0

    @cached_property
    def _longest(self) -> int:
        positions = getattr(self._model.config, "max_position_embeddings", None)
        return min(one for one in (self.max_tokens, positions, self._tokenizer.model_max_length) if one)

    @cached_property
    def _model(self) -> Any:
        import torch
        from huggingface_hub.errors import StrictDataclassError
        from safetensors import SafetensorError
        from transformers import AutoModel

        from tuneloop.models.precision import pick_dtype
        from tuneloop.models.quiet import quiet

        device = "cuda" if torch.cuda.is_available() else "cpu"
        try:
            with quiet():
                loaded: Any = AutoModel.from_pretrained(
                    self.folder, dtype=pick_dtype("auto", device)[0], device_map={"": device}, local_files_only=True,
                    use_safetensors=True, output_loading_info=True,
                )  # fmt: skip
        except (
            StrictDataclassError,
            SafetensorError,
            OSError,
            ValueError,
            KeyError,
            RuntimeError,
            ImportError,
        ) as error:
            raise ModelError(f"{self.folder}: the encoder cannot be loaded: {error}") from error
        model, report = loaded
        wrong = [*report["missing_keys"], *(key for key, *_ in report.get("mismatched_keys", ()))]
        wrong = sorted(key for key in wrong if not key.startswith("pooler."))  # a head that is not used here
        if wrong:  # transformers fills them with random numbers and goes on
            raise ModelError(f"{self.folder}: {len(wrong)} weights are missing or misshapen: {', '.join(wrong[:3])}")
        return model.eval()


def find_encoder(folder: Path) -> Encoder:
    """The encoder of a folder, from its settings alone. Raises ModelError for a folder that is none, or an unusual one.

    Read are modules.json, the pooling's config.json, sentence_bert_config.json and the default prompt.
    """
    if not folder.is_dir():
        raise ModelError(f"{folder}: no such folder; an encoder is a folder that sentence-transformers wrote")
    modules = _modules(folder)
    missing = [name for name in ("config.json", "tokenizer.json", "*.safetensors") if not any(folder.glob(name))]
    if missing:
        hint = "; ONNX files are not read" if any(folder.rglob("*.onnx")) else ""
        raise ModelError(f"{folder}: the encoder's folder has no {' and no '.join(missing)}{hint}")
    safety.check_folder(folder)
    limits = safety.read_config(folder / "sentence_bert_config.json")
    prompts = safety.read_config(folder / "config_sentence_transformers.json")
    prefix = (prompts.get("prompts") or {}).get(prompts.get("default_prompt_name")) or ""
    pooling = _pooling(folder / modules["Pooling"] / "config.json")
    return Encoder(folder, pooling, limits.get("max_seq_length"), prefix, bool(limits.get("do_lower_case")))


def _modules(folder: Path) -> dict[str, str]:
    """The kinds of the folder's modules and where each has its files."""
    path = folder / "modules.json"
    if not path.is_file():
        raise ModelError(
            f"{folder} has no modules.json, so it is no sentence encoder: take a model that sentence-transformers "
            f"lists, such as all-MiniLM-L6-v2 (English) or bge-small-zh-v1.5 (Chinese)"
        )
    value = jsonl.read(path)
    try:
        modules = {str(module["type"]).rpartition(".")[2]: str(module["path"]) for module in value}
    except (KeyError, TypeError) as error:
        raise ModelError(f"{path}: not a list of modules with a type and a path each") from error
    strange = [kind for kind in modules if kind not in KNOWN]
    if strange or list(modules)[:2] != ["Transformer", "Pooling"] or modules["Transformer"]:
        raise ModelError(
            f"{path}: the modules {', '.join(modules)} are not understood; read are encoders of Transformer, Pooling "
            f"and Normalize, the first in the folder itself"
        )
    return modules


def _pooling(path: Path) -> Pooling:
    value = safety.read_config(path)
    on = [key for key, chosen in value.items() if key.startswith("pooling_mode_") and chosen is True]
    names = [str(value["pooling_mode"])] if "pooling_mode" in value else [POOLINGS.get(key, key) for key in on]
    for known in POOLINGS.values():
        if names == [known]:
            return known
    said = f"the pooling {' with '.join(names)} is not known" if names else "it names no pooling"
    raise ModelError(f"{path}: {said}; known: {', '.join(POOLINGS.values())}")
