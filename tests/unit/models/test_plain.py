"""What is known of plain architectures without transformers is what transformers says, and their tokenizers are its."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from tuneloop.core.errors import ModelError
from tuneloop.models.checks import PLAIN, check_architecture
from tuneloop.models.config import ModelConfig
from tuneloop.models.find import find_base
from tuneloop.models.tokenizer import tokenizer_from


@pytest.mark.parametrize("name", PLAIN)
def test_the_names_are_those_of_transformers(name: str) -> None:
    assert name in CONFIG_MAPPING
    assert MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[name] == PLAIN[name]
    check_architecture(name, [PLAIN[name]], "here")
    check_architecture(name, None, "here")
    with pytest.raises(ModelError, match="is no causal language model"):
        check_architecture(name, [PLAIN[name].replace("CausalLM", "SequenceClassification")], "here")


@pytest.mark.parametrize("kind", ["TokenizersBackend", "PreTrainedTokenizerFast", "LlamaTokenizer", None])
@pytest.mark.parametrize("name", [*PLAIN, "qwen2"])
def test_the_tokenizer_is_the_one_that_transformers_takes(name: str, kind: str | None, tmp_path: Path) -> None:
    source = find_base(ModelConfig(base="embedded")).path
    for file in (*source.glob("token*.json"), *source.glob("*.jinja")):
        shutil.copy(file, tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": name, "architectures": [PLAIN.get(name, "")]}))
    values = json.loads((source / "tokenizer_config.json").read_text("utf-8"))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({**values, "tokenizer_class": kind}))
    ours: Any = tokenizer_from(tmp_path)
    theirs: Any = AutoTokenizer.from_pretrained(tmp_path, local_files_only=True)
    assert type(ours) is type(theirs)
    assert ours.backend_tokenizer.to_str() == theirs.backend_tokenizer.to_str()
    assert {k: v for k, v in vars(ours).items() if k != "_tokenizer"} == {
        k: v for k, v in vars(theirs).items() if k != "_tokenizer"
    }
