"""Strict loading of a recipe: YAML with line numbers, overrides by dotted path, all errors at once with file:line.

Knows the mechanics only; the typed tree itself is put together in `flows/recipe.py` from the branches of the rooms.
"""

from __future__ import annotations

import re
import types
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, TypeVar, Union, cast, get_args, get_origin

import yaml
from pydantic import AfterValidator, ValidationError, ValidationInfo

from tuneloop.core.errors import RecipeError
from tuneloop.core.plugins import Branch, Family, did_you_mean

B = TypeVar("B", bound=Branch)
Loc = tuple[int | str, ...]


def _find_input(value: str, info: ValidationInfo) -> str:
    context: dict[str, Path | None] = info.context or {}
    folder = context.get("folder")
    path = Path(value).expanduser()
    if folder is not None and not path.is_absolute() and (folder / path).exists():
        if not path.exists():
            return str(folder / path)
        if not path.samefile(folder / path):
            raise ValueError(
                f"two of that name: {path.absolute()} and {(folder / path).absolute()}; write the whole path of the one"
            )
    return str(path) if value.startswith("~") else value


InputPath = Annotated[str, AfterValidator(_find_input)]
"""A path looked up from the current directory, then from the recipe's folder; where both have it, an error."""


@dataclass
class Source:
    """A recipe as written: its plain value, the line on which each key stands, and the settings that changed it."""

    name: str
    value: dict[str, Any] = field(default_factory=dict[str, Any])
    lines: dict[Loc, int] = field(default_factory=dict[Loc, int])
    settings: dict[Loc, str] = field(default_factory=dict[Loc, str])

    def place_of(self, loc: Loc) -> tuple[int, str]:
        """A number to sort by, and file:line or the setting that is at fault."""
        for end in range(len(loc), 0, -1):
            if loc[:end] in self.settings:
                return 0, f"--set {self.settings[loc[:end]]}"
        below = [setting for other, setting in self.settings.items() if other[: len(loc)] == loc]
        if below and loc not in self.lines:
            return 0, f"--set {below[-1]}"
        line = self.line_of(loc)
        return line or 0, f"{self.name}:{line}" if line else self.name

    def line_of(self, loc: Loc) -> int | None:
        """The line of the longest known beginning of `loc`."""
        for end in range(len(loc), 0, -1):
            if loc[:end] in self.lines:
                return self.lines[loc[:end]]
        return None


def read_yaml(path: Path) -> Source:
    """Reads a recipe file. Raises RecipeError with file:line for broken YAML and duplicate keys."""
    if not path.is_file():
        raise RecipeError(f"{path}: no such recipe file")
    try:
        return parse_yaml(path.read_text("utf-8-sig"), str(path))
    except UnicodeDecodeError as error:
        raise RecipeError(f"{path}: a recipe must be UTF-8 ({error})") from error


def parse_yaml(text: str, name: str) -> Source:
    """As read_yaml, from text."""
    loader: Any = yaml.SafeLoader(text)
    source = Source(name)
    try:
        node = loader.get_single_node()
        value: Any = {} if node is None else _construct(loader, node, (), source)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{name}:{mark.line + 1}" if mark else name
        told = ", ".join(filter(None, (getattr(error, "context", None), getattr(error, "problem", None))))
        raise RecipeError(f"{place}: not valid YAML: {told or error}") from error
    except RecursionError as error:
        raise RecipeError(
            f"{name}: not a recipe: nested too deeply, or an alias (*name) stands inside itself"
        ) from error
    finally:
        loader.dispose()
    if not isinstance(value, dict):
        raise RecipeError(f"{name}: a recipe is a mapping of keys, found {type(value).__name__}")
    source.value = cast("dict[str, Any]", value)
    return source


def _construct(loader: Any, node: yaml.Node, loc: Loc, source: Source) -> Any:
    source.lines.setdefault(loc, node.start_mark.line + 1)
    if isinstance(node, yaml.MappingNode):
        out: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = str(loader.construct_object(key_node))
            line = key_node.start_mark.line + 1
            if key in out:
                raise RecipeError(f"{source.name}:{line}: the key '{key}' stands twice")
            source.lines[(*loc, key)] = line
            out[key] = _construct(loader, value_node, (*loc, key), source)
        return out
    if isinstance(node, yaml.SequenceNode):
        return [_construct(loader, child, (*loc, i), source) for i, child in enumerate(node.value)]
    return loader.construct_object(node)


def override(value: dict[str, Any], settings: Sequence[str]) -> dict[Loc, str]:
    """Applies `a.b.c=value` settings (values are YAML) to a plain recipe, in place. List elements go by number.

    Returns the settings by the places that they changed.
    """
    places: dict[Loc, str] = {}
    for setting in settings:
        path, equals, text = setting.partition("=")
        if not equals or not path:
            raise RecipeError(f"--set {setting}: write it as key.key=value, e.g. --set tune.epochs=2")
        keys = path.split(".")
        target: Any = value
        loc: list[int | str] = []
        for key in keys[:-1]:
            loc.append(int(key) if isinstance(target, list) and key.isdecimal() else key)
            target = _descend(target, key, setting)
        try:
            new = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise RecipeError(f"--set {setting}: the value is not valid YAML") from error
        items = cast("list[Any]", target) if isinstance(target, list) else None
        last = keys[-1] if items is None else _index(items, keys[-1], setting)
        cast(Any, target)[last] = new
        places[(*loc, last)] = setting
    return places


def _descend(target: Any, key: str, setting: str) -> Any:
    if isinstance(target, list):
        items = cast("list[Any]", target)
        index = _index(items, key, setting)
        items[index] = _branch(items[index], key, setting)
        return items[index]
    target[key] = _branch(target.get(key), key, setting)
    return target[key]


def _branch(child: Any, key: str, setting: str) -> Any:
    """What a setting can go into: a plug-in named without options gets room for them."""
    if child is None:
        return {}
    if isinstance(child, str):
        return {child: {}}
    if not isinstance(child, (dict, list)):
        raise RecipeError(f"--set {setting}: '{key}' is {child!r}; nothing can be set below it")
    return cast(Any, child)


def _index(items: list[Any], key: str, setting: str) -> int:
    if not key.isdecimal() or int(key) >= len(items):
        known = f"its {len(items)} elements count from 0" if items else "it is empty"
        raise RecipeError(f"--set {setting}: '{key}' is no element of the list: {known}")
    return int(key)


_SHOULD = re.compile(r"\b(Input|String|List|Tuple|Dictionary) should")  # pydantic's words


def load(model: type[B], source: Source, settings: Sequence[str] = ()) -> B:
    """The typed tree. Raises RecipeError with every problem at once, each with file:line and a suggestion."""
    source.settings.update(override(source.value, settings))
    folder = Path(source.name).parent if Path(source.name).is_file() else None
    try:
        return model.model_validate(source.value, context={"folder": folder})
    except ValidationError as error:
        raise RecipeError("\n".join(_explain(model, source, error.errors(include_url=False)))) from None


def dump(branch: Branch) -> str:
    """A branch as YAML that loads back equal."""
    return yaml.safe_dump(branch.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=110)


def _explain(model: type[Branch], source: Source, errors: Sequence[Any]) -> list[str]:
    """The problems in words, in the order of the file."""
    told: dict[tuple[int, str], list[str]] = {}
    for problem in errors:
        loc, siblings = _locate(model, source.value, problem["loc"])
        line, place = source.place_of(loc)
        key = ".".join(str(part) for part in loc)
        head, message = _describe(key, siblings, dict(problem))
        told.setdefault((line, f"{place}: {head}"), []).append(message)
    return [head + _either(messages) for (_, head), messages in sorted(told.items())]


def _either(messages: list[str]) -> str:
    """One message; several at one place are the alternatives of a union, of which each was tried."""
    *others, last = messages
    return "; or ".join([*(message.partition(", given: ")[0] for message in others), last])


def _describe(key: str, siblings: list[str], problem: dict[str, Any]) -> tuple[str, str]:
    """(key and what leads to it, what is wrong with it)."""
    kind, given = problem["type"], problem["input"]
    if kind == "extra_forbidden":
        known = f"; known here: {', '.join(siblings)}" if siblings else "; it has no options"
        return f"unknown key '{key}'", f"{did_you_mean(key.rpartition('.')[2], siblings)}{known}"
    if kind == "missing":
        return f"'{key}' is required", ""
    message = _SHOULD.sub("must", str(problem["msg"]).removeprefix("Value error, ")).partition(" after validation")[0]
    if kind in ("model_type", "dict_type", "model_attributes_type"):
        message = "must be a mapping" + (f" with the keys {', '.join(siblings)}" if siblings else "")
    elif kind in ("list_type", "tuple_type"):
        message = "must be a list"
    scalar = isinstance(given, (str, int, float, bool)) and kind not in ("choice", "value_error")
    shown = f", given: {given!r}" if scalar else ""
    return f"{key}: " if key else "", f"{message}{shown}"


def _locate(model: type[Branch], value: Any, loc: Loc) -> tuple[Loc, list[str]]:
    """The place in the file, and the keys known beside (or, for a branch, below) its last one.

    Plug-in names, which pydantic leaves out, are put in; the tags of unions, which it puts in, are left out.
    """
    found: list[int | str] = []
    owner: Any = model
    siblings: list[str] = []
    for part in loc:
        options = _single(value) if isinstance(owner, Family) else None
        if isinstance(owner, Family):
            if options is None:
                break
            found.append(options[0])
            owner, value = cast("Family[Any]", owner).load(options[0]), options[1]
        if owner is None or get_origin(owner) in (Union, types.UnionType):
            break
        siblings = list(owner.model_fields) if isinstance(owner, type) and issubclass(owner, Branch) else []
        found.append(part)
        owner = _child(owner, part)
        try:
            value = value[part]
        except (KeyError, IndexError, TypeError):
            value = None
    if isinstance(owner, type) and issubclass(owner, Branch):
        siblings = list(owner.model_fields)
    return tuple(found), siblings


def _single(value: Any) -> tuple[str, Any] | None:
    if isinstance(value, str):  # a plug-in named without options
        return value, {}
    if isinstance(value, dict) and len(cast("dict[str, Any]", value)) == 1:
        return next(iter(cast("dict[str, Any]", value).items()))
    return None


def _child(owner: Any, part: int | str) -> Any:
    """What stands at `part` below an annotation: a Branch, a Family, or an annotation to go on with."""
    if isinstance(owner, type) and issubclass(owner, Branch):
        info = owner.model_fields.get(str(part))
        if info is None:
            return None
        families = _families(info.metadata)
        return families[0] if families else _unwrap(info.annotation)
    if get_origin(owner) in (list, tuple):
        return _unwrap(get_args(owner)[0])
    if get_origin(owner) is dict:
        return _unwrap(get_args(owner)[1])
    return None


def _families(metadata: Sequence[Any]) -> list[Any]:
    return [extra for extra in metadata if isinstance(extra, Family)]


def _unwrap(annotation: Any) -> Any:
    if get_origin(annotation) is Annotated:
        families = _families(get_args(annotation)[1:])
        return families[0] if families else _unwrap(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        inner = [arg for arg in get_args(annotation) if arg is not type(None)]
        return _unwrap(inner[0]) if len(inner) == 1 else annotation
    return annotation
