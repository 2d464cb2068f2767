"""What the formats of whole conversations share: where the turns stand, and what their keys and roles are called."""

from __future__ import annotations

from abc import ABC
from collections.abc import Sequence
from typing import Any, ClassVar

from pydantic import Field, field_validator

from tuneloop.core.conversation import JsonObject
from tuneloop.core.plugins import did_you_mean
from tuneloop.data.formats import Format, Parts
from tuneloop.data.turns import ROLE_OF, Turns, read_tools, read_turns, reject_media, rest


class Chat(Format, ABC):
    """A record with a list of turns, and beside it perhaps a system prompt, tools and a weight."""

    usual: ClassVar[Sequence[str]]
    """The columns in which the turns stand; of several, the first."""

    column: str | None = None
    """The column of the turns; without it the first of the usual ones that is there."""
    system: str | None = "system"
    """The column of a system prompt; null: none is read."""
    tools: str | None = "tools"
    """The column of the tools' JSON schemas; null: none is read."""
    role: str
    """The key of a turn that names its role."""
    content: str
    """The key of a turn that holds its text."""
    roles: dict[str, str] = Field(default_factory=dict)
    """Names of roles beyond the usual ones, e.g. {customer: user, agent: assistant, api: tool, call: function_call}."""

    @field_validator("roles")
    @classmethod
    def _known_roles(cls, value: dict[str, str]) -> dict[str, str]:
        for name, role in value.items():
            if role not in ROLE_OF:
                raise ValueError(f"'{name}' is to be '{role}', which is no role{did_you_mean(role, ROLE_OF)}")
        return value

    def column_of(self, record: JsonObject) -> str:
        """The column of a record's turns."""
        if self.column is not None:
            return self.column
        return next((name for name in self.usual if record.get(name) is not None), self.usual[0])

    def converse(self, record: JsonObject) -> Parts:
        """The conversation of a record. Raises RowError."""
        reject_media(record)
        column = self.column_of(record)
        turns = self.turns(record.get(column))
        used = [column, "weight"]
        if self.system is not None:
            turns.system(record.get(self.system))
            used.append(self.system)
        turns.scale(record.get("weight"))
        tools = None
        if self.tools is not None:
            tools = record.get(self.tools)
            used.append(self.tools)
        return Parts(tuple(turns.messages), read_tools(tools), rest(record, *used), tuple(turns.notes))

    def turns(self, conversation: Any) -> Turns:
        """The turns of a column's value. Raises RowError."""
        return read_turns(conversation, self.role, self.content, self.roles)
