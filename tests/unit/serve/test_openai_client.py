"""The service as OpenAI's own client sees it."""

from __future__ import annotations

import asyncio
import json
import threading
from typing import Any

import httpx
import pytest
from serving import until

from tuneloop.generate.live import Ask

openai = pytest.importorskip("openai")

TOOL: Any = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather of a town.",
        "parameters": {"type": "object", "properties": {"town": {"type": "string"}}, "required": ["town"]},
    },
}
HELLO: Any = [{"role": "user", "content": "hello there"}]


def client(url: str, **options: Any) -> Any:
    return openai.OpenAI(base_url=f"{url}/v1", api_key=options.pop("api_key", "x"), max_retries=0, **options)


@pytest.fixture
def key(served: Any) -> Any:
    """A served toy and a client with a key: `key(answer) -> (opened, client)`."""

    def make(*arguments: Any, **options: Any) -> Any:
        one = served(*arguments, open_to_all=False, **options)
        made = one.service.store.keys.create("test", ["chat", "rate"])
        return one, client(one.url, api_key=made)

    return make


def test_a_conversation_is_answered_with_usage_and_fingerprint(key: Any) -> None:
    _, asking = key()
    answer = asking.chat.completions.create(model="toy", messages=HELLO)
    assert answer.choices[0].message.content == "scripted says: hello there"
    assert answer.choices[0].finish_reason == "stop"
    assert answer.system_fingerprint == "fp_5c7197ed"
    assert answer.usage.prompt_tokens == 2
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert answer.usage.prompt_tokens_details.cached_tokens == 0
    assert [model.id for model in asking.models.list()] == ["toy"]
    assert asking.models.retrieve("toy").id == "toy"


def test_a_stream_says_the_same_as_the_whole_answer(key: Any) -> None:
    _, asking = key()
    with asking.chat.completions.create(
        model="toy", messages=HELLO, stream=True, stream_options={"include_usage": True}
    ) as stream:
        chunks = list(stream)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == "scripted says: hello there"
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "stop"
    assert chunks[-1].choices == [] and chunks[-1].usage.completion_tokens == 5
    assert all(chunk.usage is None for chunk in chunks[:-1])


def test_many_at_once_by_the_asynchronous_client(key: Any) -> None:
    one, _ = key(places=8)
    made = one.service.store.keys.create("async", ["chat"])

    async def ask_all() -> list[str]:
        async with openai.AsyncOpenAI(base_url=f"{one.url}/v1", api_key=made, max_retries=0) as asking:

            async def ask(number: int) -> str:
                messages: Any = [{"role": "user", "content": f"question {number}"}]
                if number % 2:
                    answer = await asking.chat.completions.create(model="toy", messages=messages)
                    return answer.choices[0].message.content or ""
                stream = await asking.chat.completions.create(model="toy", messages=messages, stream=True)
                return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

            return await asyncio.gather(*(ask(number) for number in range(16)))

    assert asyncio.run(ask_all()) == [f"scripted says: question {number}" for number in range(16)]


def test_all_fields_reach_the_engine(key: Any) -> None:
    one, asking = key()
    messages: Any = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "hello "}, {"type": "text", "text": "there"}]},
    ]
    asking.chat.completions.create(
        model="toy", messages=messages, temperature=0.5, top_p=0.9, seed=7, max_completion_tokens=9, n=2,
        stop=["END"], logprobs=True, top_logprobs=3, user="somebody", frequency_penalty=0, presence_penalty=0,
    )  # fmt: skip
    first, second = one.engine.asked
    assert [(m.role, m.content) for m in first.request.messages] == [("system", "Be brief."), ("user", "hello there")]
    assert (first.request.seed, second.request.seed) == (7, 8)
    assert (first.decoding.max_new_tokens, first.decoding.temperature, first.decoding.top_p) == (9, 0.5, 0.9)
    assert (first.stop, first.logprobs, first.model) == (("END",), 3, "scripted")


def test_several_choices_stop_texts_and_lengths(key: Any) -> None:
    _, asking = key(lambda ask: f"one two three STOP four {ask.request.seed}")
    answer = asking.chat.completions.create(model="toy", messages=HELLO, n=3, temperature=1.0, stop="STOP")
    assert [choice.message.content for choice in answer.choices] == ["one two three "] * 3
    assert answer.usage.prompt_tokens == 2  # the prompt counts once
    short = asking.chat.completions.create(model="toy", messages=HELLO, max_tokens=2)
    assert (short.choices[0].message.content, short.choices[0].finish_reason) == ("one two", "length")


def test_logprobs_of_every_token(key: Any) -> None:
    _, asking = key()
    answer = asking.chat.completions.create(model="toy", messages=HELLO, logprobs=True, top_logprobs=1)
    tokens = answer.choices[0].logprobs.content
    assert "".join(token.token for token in tokens) == answer.choices[0].message.content
    assert bytes(b for token in tokens for b in token.bytes).decode() == answer.choices[0].message.content
    assert all(len(token.top_logprobs) == 1 for token in tokens)
    chunks = asking.chat.completions.create(model="toy", messages=HELLO, logprobs=True, stream=True)
    streamed = [t.token for c in chunks if c.choices[0].logprobs for t in c.choices[0].logprobs.content]
    assert streamed == [token.token for token in tokens]


def weather(ask: Ask) -> str:
    if ask.request.messages[-1].role == "tool":
        return f"It is {ask.request.messages[-1].content}."
    return 'Let me look.\n<tool_call>\n{"name": "weather", "arguments": {"town": "北京"}}\n</tool_call>'


def test_a_tool_is_called_and_its_result_sent_back(key: Any) -> None:
    one, asking = key(weather)
    messages: Any = [{"role": "user", "content": "The weather in Beijing?"}]
    answer = asking.chat.completions.create(model="toy", messages=messages, tools=[TOOL])
    choice = answer.choices[0]
    assert choice.finish_reason == "tool_calls"
    assert choice.message.content.strip() == "Let me look."
    (call,) = choice.message.tool_calls
    assert (call.function.name, json.loads(call.function.arguments)) == ("weather", {"town": "北京"})
    assert one.engine.asked[-1].request.tools == (TOOL,)
    messages += [choice.message, {"role": "tool", "tool_call_id": call.id, "content": "sunny"}]
    assert (
        asking.chat.completions.create(model="toy", messages=messages, tools=[TOOL]).choices[0].message.content
        == "It is sunny."
    )
    sent = one.engine.asked[-1].request.messages[1]
    assert (sent.tool_calls[0].arguments, sent.tool_calls[0].id) == ({"town": "北京"}, call.id)


def test_a_streamed_tool_call_is_never_told_as_text(key: Any) -> None:
    _, asking = key(weather)
    messages: Any = [{"role": "user", "content": "The weather in Beijing?"}]
    text, calls, reasons = "", [], []
    for chunk in asking.chat.completions.create(model="toy", messages=messages, tools=[TOOL], stream=True):
        text += chunk.choices[0].delta.content or ""
        calls += chunk.choices[0].delta.tool_calls or []
        reasons.append(chunk.choices[0].finish_reason)
    assert text.strip() == "Let me look."
    assert [(c.index, c.function.name, json.loads(c.function.arguments)) for c in calls] == [
        (0, "weather", {"town": "北京"})
    ]
    assert reasons[-1] == "tool_calls"


def test_tool_choice_none_shows_the_model_no_tools(key: Any) -> None:
    one, asking = key()
    asking.chat.completions.create(model="toy", messages=HELLO, tools=[TOOL], tool_choice="none")
    assert one.engine.asked[-1].request.tools == ()
    with pytest.raises(openai.BadRequestError, match="tool_choice"):
        asking.chat.completions.create(model="toy", messages=HELLO, tools=[TOOL], tool_choice="required")


def test_response_format_reaches_the_engine_as_a_schema(key: Any) -> None:
    one, asking = key(lambda ask: "{}")
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    formats: Any = {"type": "json_schema", "json_schema": {"name": "it", "schema": schema, "strict": True}}
    asking.chat.completions.create(model="toy", messages=HELLO, response_format=formats)
    asking.chat.completions.create(model="toy", messages=HELLO, response_format={"type": "json_object"})
    asking.chat.completions.create(model="toy", messages=HELLO, response_format={"type": "text"})
    assert [ask.schema for ask in one.engine.asked] == [schema, {}, None]


def test_completions_of_prose(key: Any) -> None:
    one, asking = key(lambda ask: f"after {ask.request.messages[0].content}")
    answer = asking.completions.create(model="toy", prompt=["a", "b"], max_tokens=5)
    assert [choice.text for choice in answer.choices] == ["after a", "after b"]
    assert answer.usage.prompt_tokens == 2
    assert one.engine.asked[0].request.messages[0].role == "text"
    stream = asking.completions.create(model="toy", prompt="a", stream=True, logprobs=1)
    chunks = list(stream)
    assert "".join(chunk.choices[0].text for chunk in chunks) == "after a"
    assert [t for c in chunks if c.choices[0].logprobs for t in c.choices[0].logprobs.text_offset] == [0, 5]


def test_embeddings_both_ways_of_writing_them(served: Any, encoder_folder: Any) -> None:
    from tuneloop.models.encoder import find_encoder

    one = served(embedder=find_encoder(encoder_folder()))
    with httpx.Client(base_url=one.url) as plain:
        answers = [
            plain.post("/v1/embeddings", json={"model": "mean", "input": ["red", "大"], "encoding_format": format})
            for format in ("float", "base64")
        ]
    # the client asks for base64 and unpacks it
    types: Any = openai.types.CreateEmbeddingResponse
    assert all(answer.status_code == 200 for answer in answers)
    assert types.model_validate(answers[0].json()).usage.prompt_tokens > 0
    made = one.service.store.keys.create("embed", ["chat"])
    vectors = client(one.url, api_key=made).embeddings.create(model="mean", input=["red", "大"]).data
    assert vectors[0].embedding == pytest.approx(answers[0].json()["data"][0]["embedding"], abs=1e-6)
    assert sum(x * x for x in vectors[1].embedding) == pytest.approx(1, abs=1e-5)


def test_refusals_are_the_clients_own_errors(key: Any) -> None:
    one, asking = key()
    with pytest.raises(openai.AuthenticationError):
        client(one.url, api_key="wrong").chat.completions.create(model="toy", messages=HELLO)
    with pytest.raises(openai.NotFoundError, match="no model 'other'"):
        asking.chat.completions.create(model="other", messages=HELLO)
    with pytest.raises(openai.BadRequestError) as refused:
        asking.chat.completions.create(model="toy", messages=HELLO, logit_bias={"1": 5})
    assert (refused.value.param, refused.value.code) == ("logit_bias", "unsupported_field")
    for stream in (False, True):
        with pytest.raises(openai.BadRequestError, match="max_tokens"):
            asking.chat.completions.create(model="toy", messages=HELLO, max_tokens=10**6, stream=stream)


def test_a_full_queue_is_429_with_the_seconds_to_wait(key: Any) -> None:
    one, asking = key(places=1, queue=1)
    one.engine.pause()
    waiting = threading.Thread(target=lambda: asking.chat.completions.create(model="toy", messages=HELLO))
    waiting.start()
    until(lambda: one.engine.now().waiting == 1)
    with pytest.raises(openai.RateLimitError) as refused:
        asking.chat.completions.create(model="toy", messages=HELLO)
    assert int(refused.value.response.headers["Retry-After"]) >= 1
    one.engine.resume()
    waiting.join()


def test_answers_are_stored_under_the_signed_ids_that_clients_get(key: Any) -> None:
    one, asking = key()
    raw = asking.chat.completions.with_raw_response.create(model="toy", messages=HELLO, user="ann")
    answer = raw.parse()
    signed = answer.choices[0].answer_id
    assert raw.headers["X-Answer-Id"] == signed
    with asking.chat.completions.with_streaming_response.create(model="toy", messages=HELLO, stream=True) as streamed:
        assert one.service.store.check(streamed.headers["X-Answer-Id"]) is not None
        streamed.read()
    kept = one.service.store.answer(one.service.store.check(signed))
    assert (kept.answer, kept.model, kept.version, kept.finish) == (
        "scripted says: hello there", "toy", "sha256:5c7197ed", "stop",
    )  # fmt: skip
    assert kept.user.startswith("u1-") and "ann" not in kept.user
    assert kept.first_ms is not None and kept.total_ms >= kept.first_ms
    assert kept.decoding.startswith("sha256:") and kept.prompt_tokens == 2
