"""Which characters the model must write: each supervised turn as its inference prompt and its answer up to the stop.

Works on text only; knows nothing of token ids or lengths.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tuneloop.core.conversation import JsonObject, Message
from tuneloop.render.chat import (
    THINK_CLOSE,
    THINK_OPEN,
    ChatTemplate,
    Habits,
    split_thinking,
    to_template,
    with_thinking,
)
from tuneloop.render.rendered import Unrenderable


@dataclass(frozen=True, slots=True)
class Turn:
    """`answer` is all that generation must give after `prompt`, the stop token included."""

    index: int
    prompt: str
    answer: str
    weight: float

    @property
    def text(self) -> str:
        return self.prompt + self.answer


@dataclass(frozen=True, slots=True)
class Passage:
    """One text that trains several turns; it ends where the last of them ends (what follows has no target)."""

    text: str
    turns: tuple[Turn, ...]
    prose: bool = False


def check(messages: Sequence[Message], tools: Sequence[JsonObject], habits: Habits) -> None:
    """Raises Unrenderable for what the template would leave out without a word, and for forged turns."""
    if habits.ignored:
        _refuse_ignored(messages, tools, habits)
    # all texts at once: nearly always there is nothing to be found in them
    whole = "\0".join([_words(message) for message in messages])
    if not any(control in whole for control in habits.control):
        return
    for index, message in enumerate(messages):
        words = _words(message)
        for control in habits.control:
            if control in words:
                raise Unrenderable(
                    f"message {index} ({message.role}) contains {control!r}, with which the chat template begins or "
                    "ends turns: the model would see a turn that nobody wrote; remove it from the text",
                    {"message": index, "token": control},
                )


def _refuse_ignored(messages: Sequence[Message], tools: Sequence[JsonObject], habits: Habits) -> None:
    used = {message.role for message in messages} | ({"tools"} if tools else set())
    if any(message.tool_calls for message in messages):
        used.add("tool_calls")
    if lost := sorted(used & habits.ignored):
        what = ", ".join(lost)
        raise Unrenderable(
            f"the chat template leaves out {what}: the model would never see it; take a base whose template knows "
            f"{what}, give another `chat_template`, or put it into the messages",
            {"ignored": lost},
        )


def _words(message: Message) -> str:
    """All that a message brings into the conversation."""
    if not message.tool_calls and message.reasoning is None:
        return message.content
    return "\0".join(
        [message.content, message.reasoning or "", *(_flat(call.arguments) for call in message.tool_calls)]
    )


def supervised(messages: Sequence[Message]) -> list[int]:
    """Indices of the messages to train on. Raises Unrenderable for weights that make no sense, or none at all."""
    for index, message in enumerate(messages):
        if message.train is None:
            continue
        if not (math.isfinite(message.weight) and message.weight >= 0):
            raise Unrenderable(f"message {index} has train {message.weight}; a loss weight is 0 or more")
        if message.weight and message.role not in ("assistant", "text"):
            raise Unrenderable(
                f"message {index} ({message.role}) has train {message.weight}, but in a chat only assistant messages "
                "are generated; remove `train` there",
                {"message": index},
            )
    found = [index for index, message in enumerate(messages) if message.weight]
    if not found:
        roles = [message.role for message in messages]
        raise Unrenderable("no message is trained on: no assistant message, or all have train 0", {"roles": roles})
    return found


@dataclass(frozen=True, slots=True)
class Asked:
    """A turn to be read: the last message of `chat`, as the template wants it, number `index` of a conversation."""

    index: int
    message: Message
    chat: Sequence[JsonObject]
    tools: Sequence[JsonObject] = ()


def asked(
    messages: Sequence[Message], tools: Sequence[JsonObject], habits: Habits, targets: Iterable[int]
) -> list[Asked]:
    """The turns of a conversation at `targets`. Raises Unrenderable for one that nothing comes before."""
    chat = [to_template(message, habits) for message in messages]
    out = [Asked(index, messages[index], chat[: index + 1], tools) for index in targets]
    if any(one.index == 0 for one in out):
        raise Unrenderable("the conversation begins with a trained assistant message: no prompt asks for it", {})
    return out


def read_turns(template: ChatTemplate, habits: Habits, wanted: Sequence[Asked]) -> list[Turn | Unrenderable]:
    """Each turn as at inference: the prompt of what came before, then what the template adds for it.

    Of any number of conversations; those without tools go through the template together.
    """
    out: list[Turn | Unrenderable] = []
    plain = [one for one in wanted if not one.tools]
    written = iter(_both(template, plain)) if plain else iter(())
    for one in wanted:
        prompt, full = next(written) if not one.tools else _both(template, [one])[0]
        try:
            out.append(_read_turn(template, habits, one, prompt, full))
        except Unrenderable as error:
            out.append(error.with_traceback(None))  # it would hold all frames, and in them itself
    return out


Written = str | Unrenderable


def _both(template: ChatTemplate, wanted: Sequence[Asked]) -> list[tuple[Written, Written]]:
    """What the template writes before each turn's answer, and with it."""
    tools = wanted[0].tools
    prompts = template.texts([one.chat[:-1] for one in wanted], tools, prompt=True)
    return list(zip(prompts, template.texts([one.chat for one in wanted], tools), strict=True))


def _read_turn(template: ChatTemplate, habits: Habits, one: Asked, prompt: Written, full: Written) -> Turn:
    for text in (prompt, full):
        if isinstance(text, Unrenderable):
            raise text
    assert isinstance(prompt, str) and isinstance(full, str)
    index, message = one.index, one.message
    written = _written(template, habits, one, prompt, full)
    found = [(place, stop) for stop in habits.stops if (place := written.find(stop)) >= 0]
    if found:
        start, stop = min(found)
        answer = written[:start] + stop
    else:  # no end token here, so the one that generation waits for takes the place of what follows the answer
        answer = (written.removesuffix(habits.tail) if habits.tail else written) + habits.stops[0]
    for part, name in zip(split_thinking(message), ("reasoning", "content"), strict=True):
        if part and not answer.startswith(part) and part not in answer and _bare(part) not in _bare(answer):
            beside = " beside tool calls" if message.tool_calls else ""
            raise Unrenderable(
                f"the chat template leaves out or changes the {name} of message {index}{beside}", {"message": index}
            )
    return Turn(index, prompt, answer, message.weight)


def _written(template: ChatTemplate, habits: Habits, one: Asked, prompt: str, full: str) -> str:
    """What the template writes after the prompt for the last message of the chat."""
    message, chat, tools = one.message, one.chat, one.tools
    begun = prompt.removesuffix(habits.unwritten)
    if not full.startswith(prompt) and habits.unwritten:
        # The prompt opens a <think> block that finished answers lack: QwQ keeps one that stands in the content,
        # DeepSeek-R1 strips even that, so there the block is put before what the template wrote.
        folded = {key: value for key, value in chat[-1].items() if key != "reasoning_content"}
        kept = template.text([*chat[:-1], {**folded, "content": with_thinking(message)}], tools)
        full = kept if kept.startswith(prompt) else full
    reasoning, _ = split_thinking(message)
    if full.startswith(prompt):
        written = full[len(prompt) :]
        if not reasoning or habits.thinking or _bare(reasoning) in _bare(written):
            return written
    block = THINK_OPEN + (reasoning or "").strip("\n") + THINK_CLOSE
    if not full.startswith(begun) or not block.startswith(habits.unwritten):
        raise Unrenderable(
            "the chat template does not begin the answer as its own generation prompt does, so training would not "
            "match inference",
            {"prompt_end": prompt[-80:], "written": full[len(begun) - 40 :][:120]},
        )
    return block[len(habits.unwritten) :] + full[len(begun) :]


def passages(turns: Iterable[Turn]) -> list[Passage]:
    """As few texts as train every turn once, each turn after exactly its inference prompt; in the order of turns."""
    out: list[Passage] = []
    left = sorted(turns, key=lambda turn: turn.index)
    if len(left) == 1:
        return [Passage(left[0].text, (left[0],))]
    while left:
        text = left[-1].text
        inside = [turn for turn in left[:-1] if text.startswith(turn.text)]
        out.append(Passage(text, (*inside, left[-1])))
        left = [turn for turn in left[:-1] if turn not in inside]
    return out[::-1]


def prose(messages: Sequence[Message]) -> Passage:
    """Messages of role `text` as one text, up to the end of the last supervised one."""
    turns: list[Turn] = []
    text = ""
    for index in range(supervised(messages)[-1] + 1):
        turns.append(Turn(index, text, messages[index].content, messages[index].weight))
        text += messages[index].content
    return Passage(text, tuple(turn for turn in turns if turn.weight), prose=True)


def _flat(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _bare(text: str) -> str:
    """Without whitespace, which templates trim."""
    return "".join(text.split())
