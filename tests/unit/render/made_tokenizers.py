# ruff: noqa: E501 (templates are as long as they are)
"""Small tokenizers and chat templates in the manner of the well-known ones, made without any download."""

from functools import cache

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

TEXT = [
    'The capital of France is Paris. What is the capital? Paris! 2 + 2 = 4, is it not? {"name": "value"}\n\n',
    "法国的首都是巴黎。中国的首都是北京。你好，请问二加二等于几？等于四。\n今天天气很好。",
    "user assistant system tool think reasoning\n\n\n  indented code\n    def f(x): return x\n",
] * 4

CHATML = """{%- for message in messages %}{{- '<|im_start|>' + message.role + '\n' }}{%- if message.role == 'assistant' %}
{%- generation %}{{- message.content + '<|im_end|>' }}{%- endgeneration %}{%- else %}{{- message.content + '<|im_end|>' }}
{%- endif %}{{- '\n' }}{%- endfor %}{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{%- endif %}"""
LLAMA = """{{- bos_token }}{%- for message in messages %}
{{- '<|start_header_id|>' + message.role + '<|end_header_id|>\n\n' + message.content | trim + '<|eot_id|>' }}{%- endfor %}
{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{%- endif %}"""
QWEN3 = """{%- set ns = namespace(last=0) %}{%- for message in messages %}{%- if message.role == 'user' %}
{%- set ns.last = loop.index0 %}{%- endif %}{%- endfor %}{%- for message in messages %}{%- set text = message.content %}
{%- set why = message.reasoning_content or '' %}{{- '<|im_start|>' + message.role + '\n' }}
{%- if message.role == 'assistant' and loop.index0 > ns.last and (loop.last or why) %}
{{- '<think>\n' + why.strip('\n') + '\n</think>\n\n' }}{%- endif %}{{- text + '<|im_end|>\n' }}{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}
{%- if enable_thinking is defined and enable_thinking is false %}{{- '<think>\n\n</think>\n\n' }}{%- endif %}{%- endif %}"""
R1 = """{{- bos_token }}{%- for message in messages %}{%- if message.role == 'assistant' %}
{{- '<|im_start|>' + message.content.split('</think>')[-1].lstrip('\n') + '<|im_end|>' }}{%- else %}
{{- '[' + message.role + ']' + message.content }}{%- endif %}{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|><think>\n' }}{%- endif %}"""
QWQ = """{%- for message in messages %}{%- set text = message.content %}{%- if message.role == 'assistant' and not loop.last %}
{%- set text = text.split('</think>')[-1].lstrip('\n') %}{%- endif %}
{{- '<|im_start|>' + message.role + '\n' + text + '<|im_end|>\n' }}{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n<think>\n' }}{%- endif %}"""
MISTRAL = """{{- bos_token }}{%- for message in messages %}{%- if (message.role == 'user') != (loop.index0 % 2 == 0) %}
{{- raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{%- endif %}
{%- if message.role == 'user' %}{{- '[INST] ' + message.content + ' [/INST]' }}{%- else %}
{{- ' ' + message.content + eos_token }}{%- endif %}{%- endfor %}"""
GEMMA = """{{- bos_token }}{%- if messages[0].role == 'system' %}{{- raise_exception('System role not supported') }}{%- endif %}
{%- for message in messages %}{%- set role = 'model' if message.role == 'assistant' else message.role %}
{{- '<start_of_turn>' + role + '\n' + message.content | trim + '<end_of_turn>\n' }}{%- endfor %}
{%- if add_generation_prompt %}{{- '<start_of_turn>model\n' }}{%- endif %}"""
NO_END = """{%- for message in messages %}{{- '<|' + message.role + '|>\n' + message.content }}{%- endfor %}
{%- if add_generation_prompt %}{{- '<|assistant|>\n' }}{%- endif %}"""
TEXT_END = """{%- for message in messages %}{{- message.role + ': ' + message.content + '\n###\n' }}{%- endfor %}
{%- if add_generation_prompt %}{{- 'assistant: ' }}{%- endif %}"""
DATED = "{{- 'Today: ' + strftime_now('%Y-%m-%d, %d %b') + '\n' }}" + LLAMA
SPECIAL = (
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<s>", "</s>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>",
    "<start_of_turn>", "<end_of_turn>",
)  # fmt: skip
TEMPLATES = {
    "chatml": (CHATML, "<|im_end|>"), "llama": (LLAMA, "<|eot_id|>"), "qwen3": (QWEN3, "<|im_end|>"),
    "r1": (R1, "<|im_end|>"), "qwq": (QWQ, "<|im_end|>"), "mistral": (MISTRAL, "</s>"),
    "gemma": (GEMMA, "<end_of_turn>"), "no_end": (NO_END, "<|endoftext|>"), "text_end": (TEXT_END, "</s>"),
}  # fmt: skip


@cache
def _byte_level() -> str:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=600, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False,
        special_tokens=[AddedToken(word, normalized=False, special=True) for word in SPECIAL],
    )  # fmt: skip
    tokenizer.train_from_iterator(TEXT, trainer)
    return tokenizer.to_str()


@cache
def _metaspace() -> str:
    """As SentencePiece in Llama 2: '▁' before the first word, unknown characters as bytes."""
    alphabet = [f"<0x{byte:02X}>" for byte in range(256)]
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=700, show_progress=False,
        special_tokens=["<unk>", *alphabet, *(AddedToken(word, normalized=False, special=True) for word in SPECIAL)],
    )  # fmt: skip
    tokenizer.train_from_iterator(TEXT, trainer)
    return tokenizer.to_str()


def make(
    template: str | None = None,
    *,
    eos: str | None = None,
    metaspace: bool = False,
    pad: str | None = None,
    bos_first: bool = False,
) -> PreTrainedTokenizerFast:
    """A tokenizer with a template of TEMPLATES (and its end token), with another template's text, or with none."""
    source, end = TEMPLATES.get(template or "", (template, "<|endoftext|>"))
    backend = Tokenizer.from_str(_metaspace() if metaspace else _byte_level())
    if bos_first:
        backend.post_processor = processors.TemplateProcessing(
            single="<s> $A", special_tokens=[("<s>", backend.token_to_id("<s>"))]
        )
    out = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token=eos or end, pad_token=pad)
    out.chat_template = source
    return out
