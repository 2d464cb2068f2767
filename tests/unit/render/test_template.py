"""Promise 2: what you see is what is trained; the training prefix is the inference prompt, token for token."""

import gc
import unicodedata
from dataclasses import replace
from datetime import date

import made_tokenizers as made
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tuneloop.core.conversation import Example, Message, Origin, ToolCall
from tuneloop.core.errors import ModelError
from tuneloop.render.many import BATCH, render_all
from tuneloop.render.template import Renderer, Unrenderable

ORIGIN = Origin("test", 0)
RENDERERS = {
    (name, space): Renderer(made.make(name, metaspace=space)) for name in made.TEMPLATES for space in (False, True)
}
PLAIN = Renderer(made.make(None))
TOOL = {"type": "function", "function": {"name": "weather", "description": "d", "parameters": {"type": "object"}}}
quick = settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


def chat(*turns: str | Message, **extra) -> Example:
    """A conversation of user and assistant texts in turn."""
    roles = ("user", "assistant")
    messages = [turn if isinstance(turn, Message) else Message(roles[i % 2], turn) for i, turn in enumerate(turns)]
    return Example(tuple(messages), ORIGIN, **extra)


def learnt(renderer: Renderer, rendered) -> list[str]:
    """The supervised runs of a sequence, decoded."""
    out, inside = [], False
    for number, weight in zip(rendered.ids.tolist(), rendered.weights.tolist(), strict=True):
        if weight and not inside:
            out.append([])
        if weight:
            out[-1].append(number)
        inside = weight > 0
    return [
        renderer.tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False) for ids in out
    ]


def assert_exact(renderer: Renderer, example: Example) -> None:
    """Every trained turn is a target once, after exactly the ids that inference would start from."""
    sequences = renderer.render(example)
    for index, message in enumerate(example.messages):
        if not message.weight:
            continue
        prompt = renderer.prompt(example.messages[:index], example.tools)
        hits = []
        for one in sequences:
            ids, weights = one.ids.tolist(), one.weights.tolist()
            if (
                ids[: len(prompt)] == prompt
                and len(ids) > len(prompt)
                and weights[len(prompt)]
                and not weights[len(prompt) - 1]
            ):
                end = next((i for i in range(len(prompt), len(ids)) if not weights[i]), len(ids))
                hits.append((ids[len(prompt) : end], set(weights[len(prompt) : end])))
        same = [hit for hit in hits if renderer.answer_text(hit[0]).strip() == message.content.strip()]
        assert len(same) == 1, (index, message, [renderer.tokenizer.decode(hit[0]) for hit in hits])
        ids, weights = same[0]
        assert weights == {np.float32(message.weight)}
        assert ids[-1] in renderer.stop_ids
        assert not set(ids[:-1]) & renderer.stop_ids


@pytest.mark.parametrize("space", [False, True], ids=["byte-level", "metaspace"])
@pytest.mark.parametrize("name", made.TEMPLATES)
def test_one_turn(name, space):
    renderer = RENDERERS[name, space]
    example = chat("What is the capital?", "Paris!")
    (one,) = renderer.render(example)
    assert (
        one.ids.dtype == np.int32 and one.weights.dtype == np.float32 and len(one) == len(one.ids) == len(one.weights)
    )
    prompt = renderer.prompt(example.prompt)
    assert one.ids[: len(prompt)].tolist() == prompt
    assert (one.weights[: len(prompt)] == 0).all() and (one.weights[len(prompt) :] == 1).all()
    assert one.supervised == len(one) - len(prompt)
    assert one.ids[-1] in renderer.stop_ids
    assert renderer.answer_text(one.ids[len(prompt) :]).strip() == "Paris!"
    # the prompt is what any other engine would be given
    text = renderer.tokenizer.apply_chat_template(
        [{"role": "user", "content": "What is the capital?"}], tokenize=False, add_generation_prompt=True
    )
    assert prompt == renderer.tokenizer(text, add_special_tokens=False)["input_ids"]


words = st.text(
    st.sampled_from(list("ab c.\n\t\"'{}4Z") + list("你好，。京") + list("🙂👩🏽\u200dé")), min_size=1, max_size=14
)
texts = words.map(lambda text: unicodedata.normalize("NFC", text)).filter(lambda text: text.strip() != "")


@st.composite
def conversations(draw):
    pairs = draw(st.lists(st.tuples(texts, texts, st.sampled_from([None, 0.0, 0.5, 2.0])), min_size=1, max_size=4))
    # every answer differs, so that each is found where it belongs
    turns = [
        m for i, (q, a, w) in enumerate(pairs) for m in (Message("user", q), Message("assistant", f"{a}{i}x", train=w))
    ]
    return Example(tuple(turns), ORIGIN)


@pytest.mark.parametrize("space", [False, True], ids=["byte-level", "metaspace"])
@pytest.mark.parametrize("name", made.TEMPLATES)
@quick
@given(example=conversations())
def test_any_conversation_is_exact(name, space, example):
    renderer = RENDERERS[name, space]
    if not any(message.weight for message in example.messages):
        with pytest.raises(Unrenderable, match="no message is trained on"):
            renderer.render(example)
        return
    assert_exact(renderer, example)


@quick
@given(example=conversations())
def test_without_a_template_chatml_is_exact_and_keeps_the_text(example):
    if any(message.weight for message in example.messages):
        assert_exact(PLAIN, example)
        expected = [m.content + "<|im_end|>" for m in example.messages if m.weight]
        found = [text for one in PLAIN.render(example) for text in learnt(PLAIN, one)]
        assert sorted(found) == sorted(expected)


@quick
@given(example=conversations())
def test_generation_tags_agree_with_the_spans(example):
    """Where a template marks the answers itself, transformers' own mask is the same as ours.

    Not so for answers that begin with whitespace: tokenised whole, they merge with the line break of the prompt.
    """
    example = example.with_messages(tuple(Message(m.role, m.content.lstrip()) for m in example.messages))
    renderer = RENDERERS["chatml", False]
    (one,) = renderer.render(example)
    given_back = renderer.tokenizer.apply_chat_template(
        [m.to_json() for m in example.messages], return_assistant_tokens_mask=True, return_dict=True
    )
    ids = given_back["input_ids"][: len(one)]
    assert one.ids.tolist() == ids and one.weights.tolist() == given_back["assistant_masks"][: len(one)]


def test_stable_templates_give_one_sequence_and_strippers_one_a_turn():
    example = chat("a", Message("assistant", "b", reasoning="why b"), "c", Message("assistant", "d", reasoning="why d"))
    assert [len(RENDERERS[name, False].render(example)) for name in ("chatml", "qwen3", "r1", "qwq")] == [1, 2, 2, 2]
    first, second = RENDERERS["qwen3", False].render(example)
    renderer = RENDERERS["qwen3", False]
    assert learnt(renderer, first) == ["<think>\nwhy b\n</think>\n\nb<|im_end|>"]
    assert learnt(renderer, second) == ["<think>\nwhy d\n</think>\n\nd<|im_end|>"]
    assert "why b" not in renderer.tokenizer.decode(second.ids)
    assert renderer.answer_parts(second.ids[second.weights > 0]) == ("why d", "d")


def test_a_prompt_that_opens_the_think_block():
    example = chat("a", Message("assistant", "b", reasoning="why"))
    for name in ("r1", "qwq"):
        renderer = RENDERERS[name, False]
        (one,) = renderer.render(example)
        assert renderer.tokenizer.decode(renderer.prompt(example.prompt)).endswith("<think>\n")
        assert learnt(renderer, one) == ["why\n</think>\n\nb<|im_end|>"]
        assert renderer.answer_parts(one.ids[one.weights > 0]) == ("why", "b")
        (inside,) = renderer.render(chat("a", "<think>\nwhy\n</think>\n\nb"))
        assert inside.ids.tolist() == one.ids.tolist()


def test_reasoning_of_templates_without_a_place_for_it_is_kept():
    renderer = RENDERERS["chatml", False]
    (one,) = renderer.render(chat("a", Message("assistant", "b", reasoning="why")))
    assert learnt(renderer, one) == ["<think>\nwhy\n</think>\n\nb<|im_end|>"]
    assert any("reasoning" in said for said in renderer.decisions)
    assert renderer.answer_text(one.ids[one.weights > 0]) == "b"


def test_template_variables_reach_training_and_prompt_alike():
    renderer = Renderer(made.make("qwen3"), variables={"enable_thinking": False})
    example = chat("a", "b")
    (one,) = renderer.render(example)
    assert renderer.tokenizer.decode(renderer.prompt(example.prompt)).endswith("<think>\n\n</think>\n\n")
    assert learnt(renderer, one) == ["b<|im_end|>"]


@pytest.mark.parametrize("name", ["no_end", "text_end"])
def test_a_missing_stop_token_is_added_after_every_answer(name):
    renderer = RENDERERS[name, False]
    stop = renderer.tokenizer.eos_token
    assert [learnt(renderer, one) for one in renderer.render(chat("a", "b", "c", "d"))] == [[f"b{stop}"], [f"d{stop}"]]
    assert any(stop in said for said in renderer.decisions)


def test_pad_is_eos_and_the_end_is_still_learnt():
    renderer = Renderer(made.make("mistral"))
    assert renderer.pad_id == renderer.tokenizer.eos_token_id
    (one,) = renderer.render(chat("a", "b", "c", "d"))
    ends = np.flatnonzero(one.ids == renderer.pad_id)
    assert len(ends) == 2 and (one.weights[ends] == 1).all()
    assert any("pad" in said for said in renderer.decisions)
    assert Renderer(made.make("mistral", pad="<|endoftext|>")).pad_id == 0


def test_chatml_markers_that_the_tokenizer_lacks_are_text_and_eos_ends_the_turn():
    tokenizer = made.make(None)
    backend = (
        tokenizer.backend_tokenizer.to_str().replace("<|im_start|>", "<|other_1|>").replace("<|im_end|>", "<|other_2|>")
    )
    bare = type(tokenizer)(tokenizer_object=made.Tokenizer.from_str(backend), eos_token="<|endoftext|>")
    renderer = Renderer(bare)
    example = chat(Message("system", "brief"), Message("user", "a"), Message("assistant", "b"))
    (one,) = renderer.render(example)
    assert bare.decode(one.ids) == (
        "<|im_start|>system\nbrief<|im_end|>\n<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\nb<|endoftext|>"
    )
    assert learnt(renderer, one) == ["b<|endoftext|>"] and renderer.stop_ids == {bare.eos_token_id}
    assert "ChatML" in renderer.decisions[0]
    with pytest.raises(Unrenderable, match="nobody wrote"):
        renderer.render(chat("a<|im_end|>", "b"))


def test_a_tokenizer_that_cannot_end_anything_is_refused():
    tokenizer = made.make(made.NO_END)
    tokenizer.eos_token = None
    with pytest.raises(ModelError, match="eos_token"):
        Renderer(tokenizer)


def test_tokens_that_would_merge_across_the_border_stay_apart():
    """The prompt ends in a line break and the answer begins with one: whole, they would be one token."""
    source = made.LLAMA.replace(" | trim", "")
    renderer = Renderer(made.make(source, eos="<|eot_id|>"))
    example = chat("a", "\n\n  indented", "c", "  x")
    assert_exact(renderer, example)
    for one in renderer.render(example):
        assert learnt(renderer, one)[-1].endswith("<|eot_id|>")


def test_the_date_stands_still():
    renderer = Renderer(made.make(made.DATED, eos="<|eot_id|>"))
    text = renderer.tokenizer.decode(renderer.prompt([Message("user", "a")]))
    assert text.startswith("Today: 2024-07-26, 26 Jul") and str(date.today()) not in text
    assert any("26 July 2024" in said for said in renderer.decisions)
    assert_exact(renderer, chat("a", "b", "c", "d"))


@pytest.mark.parametrize(
    ("name", "messages", "reason"),
    [
        ("mistral", [Message("user", "a"), Message("user", "b"), Message("assistant", "c")], "roles must alternate"),
        (
            "gemma",
            [Message("system", "s"), Message("user", "a"), Message("assistant", "c")],
            "System role not supported",
        ),
        ("chatml", [Message("user", "a")], "no message is trained on"),
        ("chatml", [], "no message is trained on"),
        ("chatml", [Message("user", "a"), Message("assistant", "b", train=0)], "no message is trained on"),
        ("chatml", [Message("assistant", "b")], "no prompt asks for it"),
        ("chatml", [Message("user", "a", train=1.0), Message("assistant", "b")], "only assistant messages"),
        ("chatml", [Message("user", "a"), Message("assistant", "b", train=float("nan"))], "loss weight"),
        ("chatml", [Message("user", "a"), Message("assistant", "b", train=-1.0)], "loss weight"),
        ("chatml", [Message("text", "a"), Message("assistant", "b")], "cannot stand in one conversation"),
        ("chatml", [Message("user", "a"), Message("assistant", "b<|im_end|>\n<|im_start|>user\nc")], "nobody wrote"),
    ],
)
def test_what_cannot_be_rendered_says_why(name, messages, reason):
    with pytest.raises(Unrenderable, match=reason) as caught:
        RENDERERS[name, False].render(Example(tuple(messages), ORIGIN))
    assert isinstance(caught.value.evidence, dict)


def test_what_a_template_ignores_is_never_lost_in_silence():
    call = Message("assistant", "", tool_calls=(ToolCall("weather", {"city": "北京"}),))
    with pytest.raises(Unrenderable, match="leaves out tools"):
        RENDERERS["chatml", False].render(chat("a", "b", tools=(TOOL,)))
    with pytest.raises(Unrenderable, match="leaves out tool_calls"):
        RENDERERS["chatml", False].render(chat("a", call))
    kept, lost = "message.content + '<|im_end|>'", "message.content | replace('secret', '') + '<|im_end|>'"
    shouting = Renderer(made.make(made.CHATML.replace(kept, lost), eos="<|im_end|>"))
    with pytest.raises(Unrenderable, match="changes the content of message 1"):
        shouting.render(chat("a", "the secret"))


def test_tools_in_chatml():
    call = Message("assistant", "", tool_calls=(ToolCall("weather", {"city": "北京"}, "c1"),))
    example = chat(
        "天气？", call, Message("tool", "晴", tool_call_id="c1"), Message("assistant", "晴天。"), tools=(TOOL,)
    )
    (one,) = PLAIN.render(example)
    assert learnt(PLAIN, one) == [
        '<tool_call>\n{"name": "weather", "arguments": {"city": "北京"}}\n</tool_call><|im_end|>', "晴天。<|im_end|>",
    ]  # fmt: skip
    assert '"name": "weather", "description": "d"' in PLAIN.tokenizer.decode(one.ids)
    prompt = PLAIN.prompt(example.messages[:3], example.tools)
    assert one.ids[: len(prompt)].tolist() == prompt


@pytest.mark.parametrize("written", ["call.function.arguments", "'' + call.function.arguments"])
def test_templates_that_want_arguments_as_text_get_json(written):
    source = made.CHATML.replace(
        "{{- message.content + '<|im_end|>' }}{%- endgeneration",
        "{{- message.content }}{%- for call in message.tool_calls or [] %}{{- call.function.name }}{{- "
        + written
        + " }}"
        "{%- endfor %}{{- '<|im_end|>' }}{%- endgeneration",
    )
    renderer = Renderer(made.make(source, eos="<|im_end|>"))
    (one,) = renderer.render(chat("a", Message("assistant", "", tool_calls=(ToolCall("f", {"城": [1, None]}),))))
    assert learnt(renderer, one) == ['f{"城": [1, null]}<|im_end|>']


# -- prose ------------------------------------------------------------------------------------------------------------


def test_a_document_ends_and_a_probe_does_not():
    renderer = RENDERERS["chatml", False]
    (document,) = renderer.render(Example((Message("text", "巴黎是首都。 The end.", train=1.0),), ORIGIN))
    assert renderer.tokenizer.decode(document.ids) == "巴黎是首都。 The end.<|endoftext|>"
    assert document.weights.tolist() == [0.0] + [1.0] * (len(document) - 1)
    probe = Example(
        (Message("text", "The capital of France is", train=0.0), Message("text", " Paris.", train=1.0)), ORIGIN
    )
    (one,) = renderer.render(probe)
    prompt = renderer.prompt(probe.prompt)
    assert one.ids[: len(prompt)].tolist() == prompt and learnt(renderer, one) == [" Paris."]
    assert 0 in renderer.stop_ids


@quick
@given(first=texts, second=texts, space=st.booleans())
def test_any_probe_is_exact(first, second, space):
    renderer = RENDERERS["llama", space]
    probe = Example((Message("text", first, train=0.0), Message("text", second, train=1.0)), ORIGIN)
    (one,) = renderer.render(probe)
    prompt = renderer.prompt(probe.prompt)
    assert one.ids[: len(prompt)].tolist() == prompt
    assert (one.weights[: len(prompt)] == 0).all() and (one.weights[len(prompt) :] == 1).all()
    assert renderer.tokenizer.decode(one.ids, clean_up_tokenization_spaces=False) == first + second


def test_prose_begins_as_the_tokenizer_begins_texts():
    renderer = Renderer(made.make("chatml", bos_first=True))
    bos = renderer.tokenizer.bos_token_id
    assert renderer.prompt([Message("text", "a")])[0] == bos
    (one,) = renderer.render(Example((Message("text", "a", train=1.0),), ORIGIN))
    assert one.ids[0] == bos and one.weights.tolist() == [0.0, 1.0, 1.0]
    assert renderer.prompt([Message("user", "a")])[0] != bos  # in a chat the template decides


# -- length -----------------------------------------------------------------------------------------------------------


def long_chat(turns: int = 8) -> Example:
    pairs = [(f"question {i} " + "x " * 10, f"answer {i}.") for i in range(turns)]
    return chat(
        Message("system", "brief"),
        *[Message(r, t) for p in pairs for r, t in zip(("user", "assistant"), p, strict=True)],
    )


def test_too_long_is_refused_with_numbers():
    with pytest.raises(Unrenderable, match="max_length 50") as caught:
        RENDERERS["chatml", False].render(long_chat(), max_length=50)
    assert caught.value.evidence["max_length"] == 50 and caught.value.evidence["tokens"] > 50


@pytest.mark.parametrize("name", ["chatml", "qwen3", "llama"])
def test_dropped_turns_leave_every_answer_whole_and_learnt_once(name):
    renderer, example = RENDERERS[name, False], long_chat()
    limit = max(map(len, renderer.render(example))) // 2
    sequences = renderer.render(example, max_length=limit, overlong="drop_turns")
    assert all(len(one) <= limit for one in sequences)
    assert any(one.left_out_messages for one in sequences) and not any(one.cut_tokens for one in sequences)
    answers = [renderer.answer_text(renderer.tokenizer(text, add_special_tokens=False)["input_ids"])
               for one in sequences for text in learnt(renderer, one)]  # fmt: skip
    assert sorted(answers) == [f"answer {i}." for i in range(8)]
    last = renderer.tokenizer.decode(sequences[-1].ids)
    assert "brief" in last and "question 0" in last and "question 2" not in last and "question 7" in last
    with pytest.raises(Unrenderable):
        renderer.render(example, max_length=20, overlong="drop_turns")


def test_truncation_only_when_asked_for():
    renderer, example = RENDERERS["chatml", False], chat("a", "one two three four")
    (whole,) = renderer.render(example)
    (cut,) = renderer.render(example, max_length=len(whole) - 2, overlong="truncate")
    assert len(cut) == len(whole) - 2 and cut.cut_tokens == 2 and whole.cut_tokens == 0
    with pytest.raises(Unrenderable, match="no token would be trained on"):
        renderer.render(example, max_length=4, overlong="truncate")
    assert len(renderer.render(example, max_length=len(whole))[0]) == len(whole)


def test_many_at_once_are_the_same_and_nothing_is_lost():
    class Count:
        n = 0

        def advance(self, n: int) -> None:
            self.n += n

    renderer, count = RENDERERS["qwen3", False], Count()
    examples = [
        chat("a", f"b{i}", "c", "d") if i % 3 else chat("a", Message("assistant", "b", train=0)) for i in range(600)
    ]
    rendered, drops = render_all(renderer, examples, progress=count)
    assert count.n == 600 and len(drops) == 200 and {drop.step for drop in drops} == {"render"}
    alone = [one for i, example in enumerate(examples) if i % 3 for one in renderer.render(example)]
    assert [(one.example, one.ids.tolist(), one.weights.tolist()) for one in rendered] == [
        (one.example, one.ids.tolist(), one.weights.tolist()) for one in alone
    ]


@pytest.mark.parametrize("name", made.TEMPLATES)
def test_many_at_once_are_each_alone(name):
    """Over several batches, in order, the refused ones between the others."""
    kinds = [
        chat("2+2?", "4"),
        chat("hi", " hello", "再见", "\n再见。"),
        chat("a", Message("assistant", "b", reasoning="c"), "d", Message("assistant", "e", reasoning="f")),
        chat("only asked"),
        chat("a", "<|im_end|>"),
        Example((Message("system", "brief"), Message("user", "u"), Message("assistant", "v")), ORIGIN),
        Example((Message("text", "prose ", train=1.0), Message("text", "more", train=0.5)), ORIGIN),
        Example(chat("sky?", "blue").messages, ORIGIN, tools=(TOOL,)),
    ]
    examples = [replace(kinds[i % len(kinds)], meta={"i": i}) for i in range(2 * BATCH + 5)]
    renderer = RENDERERS[name, False]
    rendered, drops = render_all(renderer, examples)
    alone, refused = [], []
    for example in examples:
        try:
            alone += renderer.render(example)
        except Unrenderable as error:
            refused.append((example.meta, error.reason, error.evidence))
    assert [(d.example.meta, d.reason, d.evidence) for d in drops] == refused and refused
    assert [(r.ids.tolist(), r.weights.tolist(), r.example) for r in rendered] == [
        (r.ids.tolist(), r.weights.tolist(), r.example) for r in alone
    ]


def test_refused_rows_leave_no_circles_behind():
    """The collector runs rarely meanwhile: an error that holds its own frames would keep the texts of its batch."""
    renderer = RENDERERS["chatml", False]
    refused = [chat("only asked"), chat("a<|im_end|>", "b"), chat("a", "b " * 90)]
    gc.collect()
    gc.disable()
    try:
        _, drops = render_all(renderer, refused * 100, max_length=30)
        assert gc.collect() < len(drops)
    finally:
        gc.enable()
    assert len(drops) == 300
