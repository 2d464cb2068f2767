"""What stands under fields, against pydantic's own way of reading it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict

from tuneloop.core import docstrings
from tuneloop.core.plugins import Branch

SOURCE = '''
from __future__ import annotations
from typing import ClassVar
from BASE import Base

class Outer(Base):
    """A class."""
    first: int = 1
    """Of one line."""
    "Not of a field."
    second: str = ""
    third: list[int] = []
    """Of several

    lines.
    """
    LIMIT: ClassVar[int] = 3
    """Of no field."""

    class Inner(Base):
        first: int = 2
        """Of the inner class."""

    inner: Inner = Inner()
    """A class inside."""

class Derived(Outer):
    second: str = "x"
    """Only here."""
    first: int = 4
    fourth: int = 5
    """New."""

class Other(Derived):
    pass

def made():
    class Local(Base):
        first: int = 1
        """Inside a function."""
    return Local

if True:
    class Outer2(Outer):
        third: list[int] = []
        """In a branch."""

class Twice(Base):
    first: int = 1
    """The first."""

class Twice(Base):
    first: int = 1
    """The second."""
'''


def classes(base: type[BaseModel], folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, type[BaseModel]]:
    """The classes of SOURCE, derived from `base`."""
    name = f"docstrings_{base.__name__.lower()}"
    folder.joinpath(f"{name}.py").write_text(
        SOURCE.replace("from BASE import Base", f"from {base.__module__} import {base.__name__} as Base"), "utf-8"
    )
    monkeypatch.syspath_prepend(folder)
    module: Any = __import__(name)
    return {
        "Outer": module.Outer, "Inner": module.Outer.Inner, "Derived": module.Derived, "Other": module.Other,
        "Local": module.made(), "Outer2": module.Outer2, "Twice": module.Twice,
    }  # fmt: skip


class Reading(BaseModel):
    model_config = ConfigDict(use_attribute_docstrings=True)


def test_the_same_is_read_as_pydantic_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = classes(Branch, tmp_path, monkeypatch), classes(Reading, tmp_path, monkeypatch)
    for name, cls in theirs.items():
        said = {key: field.description for key, field in cls.model_fields.items() if field.description}
        found = docstrings.of_fields(ours[name])
        assert {key: found[key] for key in cls.model_fields if key in found} == said, name
        properties = ours[name].model_json_schema()["properties"]
        assert {key: about["description"] for key, about in properties.items() if "description" in about} == said, name
    assert docstrings.of_fields(ours["Derived"])["fourth"] == "New."  # something was read at all


def test_without_a_source_nothing_is_said() -> None:
    made: dict[str, Any] = {"__name__": "typed_at_a_prompt"}
    exec("class Size:\n    width: int = 1\n    'In millimetres.'", made)
    assert docstrings.of_fields(made["Size"]) == {}
    assert docstrings.of_fields(int) == {}
