"""Format `table`: columns that the recipe names itself, by `columns:` or `template:`."""

from __future__ import annotations

from tuneloop.core.conversation import JsonObject
from tuneloop.data.formats import Format, Parts, RowError
from tuneloop.data.turns import ask_and_answer, read_tools, reject_media, rest

ROLES = ("prompt", "response", "system", "history", "tools")


class Table(Format):
    """Rows of CSV, TSV, Parquet, JSON or JSONL whose columns `columns:` or `template:` of the source explain.

    Roles: prompt and response (needed), system, history, tools. All other columns become meta. Nothing is guessed:
    a column that happens to be called `system` is not read as a system prompt unless it is listed.
    """

    def parse(self, record: JsonObject) -> Parts:
        reject_media(record)
        for role in ("prompt", "response"):
            if role not in record:
                raise RowError(
                    f"no column '{role}': name it, as in `columns: {{{role}: <column>}}`, or write a `template:`",
                    columns=list(record),
                )
        notes: list[str] = []
        messages = ask_and_answer(record, "prompt", "response", notes)
        return Parts(messages, read_tools(record.get("tools")), rest(record, *ROLES), tuple(notes))

    def likeness(self, record: JsonObject) -> float:
        return 0.0  # never guessed: it is chosen by naming columns
