"""Families of plug-ins: a folder is a family, a file is a plug-in, the file's name is its name.

A plug-in is one class whose fields are its options. Listing a family imports nothing; outside packages join through
entry points of the group `tuneloop.<family>`.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import pkgutil
import sys
from collections.abc import Iterable, Sequence
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Generic, TypeVar, cast

from pydantic import BaseModel, ConfigDict, GetCoreSchemaHandler, GetJsonSchemaHandler, ValidationInfo
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from tuneloop.core import docstrings


class Branch(BaseModel):
    """A branch of the recipe: frozen, unknown keys forbidden; the string under each field is its documentation."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        made = handler(schema)
        properties = handler.resolve_ref_schema(made).get("properties", {})
        for name, about in docstrings.of_fields(cls).items():
            if name in properties:
                properties[name].setdefault("description", about)
        return made


class Plugin(Branch):
    """Base of the families' interfaces. A leaf adds its options as fields and implements the interface's method."""


P = TypeVar("P", bound=Plugin)


@lru_cache(maxsize=1)
def _installed(path: tuple[str, ...]) -> dict[str, list[EntryPoint]]:
    """The entry points of all packages on the path that are for us, by group; read once: a tenth of a second where
    many packages are installed."""
    found = entry_points()
    return {group: [*found.select(group=group)] for group in found.groups if group.startswith("tuneloop.")}


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """' (did you mean …?)' or ''."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.55)
    return f" (did you mean '{close[0]}'?)" if close else ""


def listed(names: Sequence[str], most: int = 20) -> str:
    """Names with commas; of many the first and how many more there are: a table may have 100,000 columns."""
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


class Family(Generic[P]):
    """A folder of plug-ins that implement `interface`; as a pydantic annotation, the choice of one of them.

    In a recipe a choice is written `name` or `{name: {option: value}}`, and is dumped in the second form.
    """

    def __init__(self, name: str, package: str, interface: type[P]) -> None:
        self.name, self.package, self.interface = name, package, interface
        self._loaded: dict[str, type[P]] = {}

    def names(self) -> list[str]:
        """All names, those of installed packages included, without importing any plug-in."""
        return sorted({*self._own(), *(point.name for point in self._outside())})

    def load(self, name: str) -> type[P]:
        """The plug-in's class. Raises KeyError with a suggestion when there is none of that name."""
        if name not in self._loaded:
            outside = [point for point in self._outside() if point.name == name]
            if len(outside) + (name in self._own()) > 1:
                where = ", ".join(point.value for point in outside)
                raise KeyError(f"'{name}' stands twice among the {self.name} ({where}): uninstall or rename one")
            if outside:
                self._loaded[name] = cast("type[P]", outside[0].load())
            elif name in self.names():
                self._loaded[name] = self._class_of(importlib.import_module(f"{self.package}.{name}"))
            else:
                known = self.names()
                hint = did_you_mean(name, known)
                raise KeyError(f"no '{name}' among the {self.name}{hint}; known: {', '.join(known)}")
        return self._loaded[name]

    def name_of(self, plugin: P) -> str:
        """The name under which a plug-in was loaded."""
        return next(name for name, loaded in self._loaded.items() if loaded is type(plugin))

    def make(self, choice: object, context: Any = None) -> P:
        """A plug-in from `name`, `{name: options}` or an instance. Raises ValidationError with the options' places.

        `context` is pydantic's, in which a recipe's folder reaches paths among the options.
        """
        if isinstance(choice, self.interface):
            for name in [] if type(choice) in self._loaded.values() else self.names():
                self.load(name)
            return choice
        if isinstance(choice, str):
            choice = {choice: {}}
        if not isinstance(choice, dict) or len(cast("dict[Any, Any]", choice)) != 1:
            raise PydanticCustomError(
                "choice", "write one name or one {name: {options}} of: {names}", {"names": ", ".join(self.names())}
            )
        ((name, options),) = cast("dict[str, Any]", choice).items()
        try:
            chosen = self.load(str(name))
        except KeyError as error:
            raise PydanticCustomError("choice", "{message}", {"message": error.args[0]}) from None
        return chosen.model_validate(options if options is not None else {}, context=context)

    def _own(self) -> list[str]:
        folder = importlib.import_module(self.package).__path__
        return [module.name for module in pkgutil.iter_modules(folder) if not module.name.startswith("_")]

    def _outside(self) -> list[EntryPoint]:
        return _installed(tuple(sys.path)).get(f"tuneloop.{self.name}", [])

    def _class_of(self, module: Any) -> type[P]:
        classes = [
            value
            for _, value in inspect.getmembers(module, inspect.isclass)
            if issubclass(value, self.interface)
            and value.__module__ == module.__name__
            and not inspect.isabstract(value)
        ]
        assert len(classes) == 1, f"{module.__name__} must define exactly one plug-in, found {classes}"
        return classes[0]

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        def make(choice: Any, info: ValidationInfo) -> P:
            return self.make(choice, info.context)

        def dump(plugin: P) -> dict[str, Any]:
            return {self.name_of(plugin): plugin.model_dump(mode="json")}

        serialization = core_schema.plain_serializer_function_ser_schema(dump)
        return core_schema.with_info_plain_validator_function(make, serialization=serialization)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        choices: list[JsonSchemaValue] = [{"enum": self.names()}]
        for name in self.names():
            options = self.load(name).model_json_schema()
            choices.append(
                {"type": "object", "properties": {name: options}, "required": [name], "additionalProperties": False}
            )
        return {"anyOf": choices}
