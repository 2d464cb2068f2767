# ruff: noqa: E501 (templates are as long as they are)
"""Texts by following a template are those that the template writes, always; what cannot be followed is left to it."""

from dataclasses import dataclass
from pathlib import Path

import made_tokenizers as made
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tuneloop.core.conversation import Example, Message, Origin
from tuneloop.render import chat as chats
from tuneloop.render import decide, symbols, traced
from tuneloop.render.chat import MANY, ChatTemplate
from tuneloop.render.symbols import NotTraceable, Trace
from tuneloop.render.template import Renderer, Unrenderable

ROOT = Path(__file__).resolve().parents[3]
SHARED = ROOT / "../shared/tokenizers"
FOLDERS = {
    "embedded": ROOT / "src/tuneloop/models/embedded",
    **{name: SHARED / name for name in ("gpt2", "qwen2.5", "qwen3", "llama-3.1")},
}
quick = settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


def templates() -> dict[str, ChatTemplate]:
    from transformers import AutoTokenizer

    tokenizers = {name: made.make(name) for name in made.TEMPLATES}
    tokenizers |= {"dated": made.make(made.DATED, eos="<|eot_id|>"), "own": made.make(None)}
    tokenizers |= {name: AutoTokenizer.from_pretrained(path) for name, path in FOLDERS.items() if path.is_dir()}
    return {name: Renderer(tokenizer).template for name, tokenizer in tokenizers.items()}


TEMPLATES = templates()


def turn(role: str, content: str, **more: str) -> dict[str, str]:
    return {"role": role, "content": content, **more}


@dataclass(frozen=True)
class Count:
    """Traces of a template, and those of them that lead nowhere."""

    followed: int
    nowhere: int

    @classmethod
    def of(cls, template: ChatTemplate) -> "Count":
        def leaves(known):
            for one in known.values():
                yield from leaves(one.after) if isinstance(one, traced.Fork) else [one]

        (traces,) = template._known.values()
        found = [bool(one) for one in leaves(traces._known)]
        return cls(sum(found), len(found) - sum(found))


def assert_same(template: ChatTemplate, conversations: list, prompt: bool) -> None:
    """Many at once, when nothing of their kind is known yet and when it is, are each alone, by the template itself."""
    alone = [template.texts([one], prompt=prompt)[0] for one in conversations]
    many = conversations * (MANY // len(conversations) + 1)
    expected = list(map(str, alone)) * (MANY // len(conversations) + 1)
    assert list(map(str, template.texts(many, prompt=prompt))) == expected
    assert list(map(str, template.texts(many, prompt=prompt))) == expected
    assert not template.differed


def made_template(source: str) -> ChatTemplate:
    return ChatTemplate(made.make("chatml"), source)


needles = ["</think>", "<think>", "<tool_response>", "</tool_response>", "<|im_end|>", "{{ x }}", "{% if %}", "%s", "{0}",
           "\n", " ", "\t", "　", "\u2028", "a", "é", "京", "🙂", "'", '"', "\\", "\ue000"]  # fmt: skip
texts = st.lists(st.sampled_from(needles), max_size=6).map("".join)


@st.composite
def conversations(draw):
    out = [turn("system", draw(texts))] if draw(st.booleans()) else []
    for _ in range(draw(st.integers(1, 3))):
        out.append(turn("user", draw(texts)))
        more = {"reasoning_content": draw(texts)} if draw(st.booleans()) else {}
        out.append(turn("assistant", draw(texts), **more))
    return out


@pytest.mark.parametrize("name", TEMPLATES)
@quick
@given(data=st.lists(conversations(), min_size=1, max_size=8), prompt=st.booleans())
def test_any_conversations_are_the_templates_own(name, data, prompt):
    assert_same(TEMPLATES[name], data, prompt)


@pytest.mark.parametrize("name", TEMPLATES)
def test_known_templates_are_followed_wholly(name):
    fresh = ChatTemplate(TEMPLATES[name].tokenizer, TEMPLATES[name].source)
    plain = [turn("user", "a"), turn("assistant", " b\n"), turn("user", "c"), turn("assistant", "d")]
    assert_same(fresh, [plain[:2], plain], prompt=False)
    assert_same(fresh, [plain[:1], plain[:3]], prompt=True)
    assert Count.of(fresh) == Count(4, 0)


LOOP = "{%% for m in messages %%}{%% set c = m.content %%}[{{ m.role }}]%s{%% endfor %%}"
FOLLOWED = [
    "{{ c ~ '!' ~ loop.index }}", "{{ '<' + c + '>' + c.strip() }}", "{{ c | trim }}{{ (c | trim) == 'a' }}",
    "{{ c.split('</think>')[-1].lstrip('\n') }}", "{{ c.split('a') | last }}{{ c.partition('a')[2] }}",
    "{% if '</think>' in c and not c.endswith('a') %}{{ c }}{% endif %}", "{{ c or 'nothing' }}", "{{ c is string }}",
    "{{ c is none }}{{ c is mapping }}{{ c is iterable }}{{ c is defined }}{{ c is eq 'a' }}{{ c == 3 }}",
    "{% set x %} {{ c }} {% endset %}{{ x | trim }}{% if x.strip() %}.{% endif %}", "{{ c.text is defined }}",
    "{{ c['text'] is defined }}{{ c.trace is defined }}{{ c._text is defined }}", "{{ c | string }}{{ c | default(1) }}",
    "{% macro say(x) %}<{{ x }}>{% endmacro %}{{ say(c) }}{{ say(say(c)) | trim }}",
    "{% macro in() %}{{ caller() }}{% endmacro %}{% call in() %}{{ c }}{% endcall %}",
    "{% generation %}{{ c }}{% endgeneration %}", "{% set ns = namespace(a='') %}{% set ns.a = ns.a + c %}{{ ns.a }}",
    "{% filter trim %}{{ c }}{% endfilter %}", "{{ (messages | last).content }}{{ messages | map(attribute='role') | list | join }}",
    "{% if messages[0] == messages[-1] %}{{ c }}{% endif %}", "{{ [c, 'b'][0] }}{{ {'k': c}['k'] }}", "{{ c != 'a' }}",
    "{{ messages | selectattr('role', 'equalto', 'user') | list | length }}{{ c.replace('a', 'b') }}",
    "{{ messages | selectattr('content', 'equalto', 'a') | list | length }}", "{{ 'a' in [c, 'b'] }}{{ [c] == ['a'] }}",
    "{% if c.startswith(('a', '\n')) %}x{% else %}y{% endif %}", "{{ c if c else none }}", "{{ ('<b>' | safe) ~ c }}", "{{ (c, c)[1] }}",
]  # fmt: skip
REFUSED = [
    "{{ c | length }}", "{{ c | tojson }}", "{{ m | tojson }}", "{{ messages | tojson }}", "{{ c[0] }}", "{{ c[1:] }}",
    "{% for x in c %}{{ x }}.{% endfor %}", "{{ c in 'a text' }}", "{{ c is in 'abc' }}", "{{ 'lit' if c < 'b' }}", "{{ m }}",
    "{{ {'a': 1}[c] is defined }}", "{{ {'a': 1}.get(c) }}", "{{ '%s' % c }}", "{{ 'abc' % c }}", "{{ '%s' | format(c) }}",
    "{{ '{}'.format(c) }}", "{{ 'lit'.startswith(c) }}", "{{ 'x'.join([c, c]) }}", "{{ [c, c] | join('x') }}", "{{ [c] }}",
    "{{ c * 2 }}", "{{ c | upper }}", "{{ c | replace('a', 'b') }}", "{{ c | indent }}", "{{ c | first }}", "{{ c | int }}",
    "{{ c.split() }}", "{{ c.split()[0] }}", "{{ c.split('a')[1] }}", "{{ c.split('a') | length }}", "{{ c.count('a') }}",
    "{{ c.isdigit() }}", "{{ c.encode() }}", "{{ c.format(1) }}", "{{ c | e }}", "{{ c | list }}", "{{ c | wordcount }}",
    "{{ c is lower }}", "{{ c is sameas 'a' }}", "{{ messages | groupby('content') | length }}", "{{ c.strip(c) }}",
    "{{ messages | sort(attribute='content') | length }}", "{{ c == messages[0].content }}", "{{ dict(a=c) | tojson }}",
    "{{ ('<b>' | safe) + c }}", "{{ (c ~ 'x') | upper }}", "{{ [c] | tojson }}", "{{ c.find('a') }}",
    "{% set x %}{{ c }}{% endset %}{{ x | length }}", "{{ 'a'.replace('a', c) }}", "{{ c | reverse }}", "{{ ['abc'][c] }}",
    "{{ 'a' | replace('a', c) }}", "{{ c | string | length }}", "{{ messages | map(attribute='content') | join }}",
    "{{ 'ab'.translate(c) }}", "{{ range(c) }}", "{{ -c }}", "{{ m.items() | list }}", "{{ c is number or c }}{{ c | abs }}",
    "{{ messages | map(attribute='content') | map('upper') | list }}", "{% autoescape true %}{{ c }}{% endautoescape %}",
]  # fmt: skip
CONTENTS = [
    "",
    "a",
    " a ",
    "\n",
    "</think>\n\nb",
    "x</think>a",
    "abc",
    "<b>&",
    "{0}",
    "%s",
    "1",
    "a text",
    "'\"\\",
    "  ",
]


@pytest.mark.parametrize("body", [*FOLLOWED, *REFUSED])
def test_whatever_a_template_does_with_contents(body):
    template = made_template(LOOP % body)
    assert_same(
        template, [[turn("user", one), turn("assistant", other)] for one in CONTENTS for other in CONTENTS], False
    )
    count = Count.of(template)
    assert count.nowhere == 0 if body in FOLLOWED else count.followed == 0, count


def test_guards_hold_both_ways_and_each_answer_is_traced_once():
    template = made_template(LOOP % "{% if 'x' in c %}{{ c | trim }}{% elif c %}{{ c }}{% else %}none{% endif %}")
    data = [[turn("user", text)] for text in ("x ", " y", "", "xx", "yy ", "")]
    assert_same(template, data, False)
    assert Count.of(template) == Count(3, 0)


def test_a_branch_that_cannot_be_followed_leaves_the_others_alone():
    template = made_template(LOOP % "{% if 'x' in c %}{{ c | upper }}{% else %}{{ c }}{% endif %}")
    assert_same(template, [[turn("user", text)] for text in ("a", "x", "b")], False)
    assert Count.of(template) == Count(1, 1)


@pytest.mark.parametrize("body", ["{{ [1, 2] | random }}{{ c }}", "{{ lipsum(1) }}{{ c }}"])
def test_chance_is_left_to_the_template(body):
    template = made_template(LOOP % body)
    template.texts([[turn("user", "a")]] * MANY)
    assert Count.of(template).followed == 0 and not template.differed


def test_traces_are_bounded(monkeypatch):
    monkeypatch.setattr(traced, "LIMIT", 5)
    template = made_template(LOOP % "{{ c }}")
    assert_same(template, [[turn("user", "a")] * count for count in range(1, 12)], False)
    assert Count.of(template) == Count(5, 0)


def test_only_texts_are_followed():
    template = made_template(LOOP % "{{ c }}{{ m.tool_calls | tojson if m.tool_calls else '' }}")
    call = {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "f", "arguments": {}}}]}
    parts = {"role": "user", "content": [{"type": "text", "text": "a"}]}
    assert_same(template, [[turn("user", "a"), call], [parts], [turn("user", "a")]], False)
    assert Count.of(template) == Count(1, 0)


def test_what_the_template_refuses_is_refused():
    template = TEMPLATES["mistral"]
    wrong = [turn("user", "a"), turn("user", "b")]
    found = template.texts([wrong, [turn("user", "a")]] * MANY)
    assert [isinstance(text, Unrenderable) for text in found] == [True, False] * MANY


def test_variables_and_special_tokens_are_those_of_the_moment():
    tokenizer = made.make(LOOP % "{{ c + eos_token + word }}", eos="<|im_end|>")
    template = ChatTemplate(tokenizer, variables={"word": "w"})
    data = [[turn("user", "a")]] * MANY
    assert template.texts(data) == template.texts(data) == ["[user]a<|im_end|>w"] * MANY
    tokenizer.eos_token = "</s>"
    assert template.texts(data) == ["[user]a</s>w"] * MANY
    odd = ChatTemplate(tokenizer, variables={"word": object()})
    assert odd.texts(data) == ["[user]a</s><object>"] * MANY and Count.of(odd) == Count(0, 0)


def test_a_template_that_is_not_a_function_of_contents_is_run_for_every_row(monkeypatch):
    renderer = Renderer(made.make("chatml"))
    wrong = traced.Written(("something else",), (), ())
    monkeypatch.setattr(traced.Traces, "_followed", lambda *_: wrong)
    examples = [
        Example((Message("user", f"a{i}"), Message("assistant", "b")), Origin("test", i)) for i in range(2 * MANY)
    ]
    for _ in range(2):
        assert all(
            isinstance(found, list) and found[0].text.startswith("<|im_start|>") for found in renderer.plan(examples)
        )
    assert renderer.template.differed and decide.NOT_FOLLOWED in renderer.decisions


def test_other_questions_after_the_same_answers_are_no_trace():
    traces = traced.Traces("{{ messages }}", {})
    trace = Trace(["a"])
    assert trace.content(0) == "a"
    written = traced.Written(("x",), (), ())
    assert traces._keep((False, "user"), trace.asked, written)
    other = Trace(["a"])
    assert other.content(0).method("startswith")("a")
    assert not traces._keep((False, "user"), other.asked, written)


def test_without_the_means_of_transformers_nothing_is_followed(monkeypatch):
    from transformers.utils import chat_template_utils

    template = made_template(LOOP % "{{ c }}")
    ordinary = template.texts([[turn("user", "a")]])
    hidden = chat_template_utils._compile_jinja_template
    monkeypatch.delattr(chat_template_utils, "_compile_jinja_template")
    assert traced._compiled(LOOP % "{{ c }}") is None
    monkeypatch.setattr(chat_template_utils, "_compile_jinja_template", hidden, raising=False)
    assert ordinary == ["[user]a"] and chats.MANY == MANY


@pytest.mark.parametrize("name", sorted(set(dir(str)) - set(dir(object))))
def test_every_method_of_texts_is_followed_or_refused(name):
    if name.startswith("__"):
        own = getattr(symbols.Symbol, name, None)
        assert own is not None or name in ("__mul__", "__rmul__", "__mod__", "__rmod__", "__getnewargs__")  # TypeError
        return
    trace = Trace(["a text"])
    followed = {*symbols.CHANGES, *symbols.QUESTIONS, *symbols.CUTS}
    if name in followed:
        assert callable(trace.content(0).method(name))
    else:
        with pytest.raises(NotTraceable):
            trace.content(0).method(name)
        assert trace.refused
