"""Private data is masked before it is written, and the record says by which rules."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from pydantic import ValidationError

from tests.unit.store.conftest import SECRET
from tuneloop.core.conversation import Message, ToolCall
from tuneloop.store import store
from tuneloop.store.records import Feedback, Interaction
from tuneloop.store.redaction import Redaction
from tuneloop.store.store import Store

NOW = datetime.now(UTC)
PHONE, MAIL = "13812345678", "zhangsan@qq.com"


@pytest.fixture
def masking(url: str) -> Iterator[Store]:
    with store.open(url, SECRET) as made:
        yield made


def recorded(made: Store) -> Interaction:
    prompt = (Message("system", "short"), Message("user", f"病历号：ZY20231234，电话{PHONE}"))
    call = ToolCall("call", {"phone": PHONE, "n": 3})
    one = Interaction("a1", NOW, made.pseudonym("alice"), "m", prompt, f"ZY20231234: {MAIL}", "stop", (call,))
    made.record(one)
    found = made.answer("a1")
    assert found is not None
    return found


def test_a_conversation_is_masked_as_a_whole(masking: Store) -> None:
    found = recorded(masking)
    assert [message.content for message in found.prompt] == ["short", "病历号：[MEDICAL_RECORD]，电话[PHONE]"]
    assert found.answer == "[MEDICAL_RECORD]: [EMAIL]"  # known from the question, where a word said what it is
    assert found.calls == (ToolCall("call", {"phone": "[PHONE]", "n": 3}),)
    assert found.redaction.startswith("strong: bank_card cn_id")
    assert "person_name" not in found.redaction  # only ever a hint


def test_votes_are_masked(masking: Store) -> None:
    one = recorded(masking)
    masking.feedback(Feedback(one.id, one.user, NOW, corrected=f"写信给{MAIL}", comment=f"电话{PHONE}", tags=(MAIL,)))
    (vote,) = masking.votes(one.id)
    assert (vote.corrected, vote.comment, vote.tags) == ("写信给[EMAIL]", "电话[PHONE]", ("[EMAIL]",))
    assert vote.redaction == one.redaction
    masking.feedback(Feedback(one.id, one.user, NOW, thumb=1))
    assert masking.votes(one.id)[-1].corrected is None


def test_only_the_named_rules_run(url: str) -> None:
    with store.open(url, SECRET, Redaction(kinds=["email"])) as made:
        found = recorded(made)
    assert PHONE in found.prompt[1].content
    assert found.answer == "ZY20231234: [EMAIL]"
    assert found.redaction == "strong: email"


def test_without_rules_the_record_says_so(url: str) -> None:
    with store.open(url, SECRET, None) as made:
        found = recorded(made)
    assert found.answer == f"ZY20231234: {MAIL}"
    assert found.redaction == ""


def test_a_key_of_ours_in_a_question_is_masked(masking: Store) -> None:
    key = masking.keys.create("a", ["chat"])
    one = Interaction("a2", NOW, masking.pseudonym("a"), "m", (Message("user", f"my key {key}!"),), "no", "stop")
    masking.record(one)
    found = masking.answer("a2")
    assert found is not None
    assert found.prompt[0].content == "my key [SECRET_KEY]!"


def test_unknown_kinds_are_refused() -> None:
    with pytest.raises(ValidationError, match="did you mean 'phone'"):
        Redaction(kinds=["fone"])
