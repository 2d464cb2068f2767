from __future__ import annotations

from tuneloop.core.conversation import Message
from tuneloop.generate.engine import Completion, Decoding, Engine, Request
from tuneloop.generate.scripted import ScriptedEngine


def test_scripted_answers_are_cut_and_refused_as_a_model_would() -> None:
    told: dict[int, Completion] = {}
    say = {"a": "yes", "b": None}
    engine: Engine = ScriptedEngine(lambda request: say[request.messages[-1].content])
    requests = [Request((Message("user", text),)) for text in "ab"]
    found = engine.answer(requests, Decoding(3), told.__setitem__)
    assert found[0] == Completion((121, 101, 115), "yes", True)
    assert found[1].refused and found == [told[0], told[1]]
    assert engine.answer(requests[:1], Decoding(2))[0] == Completion((121, 101), "ye", False)
