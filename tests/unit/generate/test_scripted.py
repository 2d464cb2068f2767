from __future__ import annotations

from tuneloop.generate.engine import Completion, Engine
from tuneloop.generate.scripted import ScriptedEngine


def test_scripted_answers_stop_where_a_model_would() -> None:
    told: list[int] = []
    engine: Engine = ScriptedEngine(lambda prompt: [*prompt, 9, 7], decode=lambda ids: "".join(map(str, ids)))
    found = engine.complete([[1, 2], [3]], max_new_tokens=3, stop_ids={9}, progress=told.append)
    assert found == [Completion((1, 2), "12", True), Completion((3,), "3", True)]
    assert engine.complete([[1, 2]], max_new_tokens=2, stop_ids={9}) == [Completion((1, 2), "12", False)]
    assert sum(told) == 2
