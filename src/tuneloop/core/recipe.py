"""Strict loading of a recipe: YAML with line numbers, overrides by dotted path, all errors at once with file:line.

Knows the mechanics only; the typed tree itself is put together in `flows/recipe.py` from the branches of the rooms.
"""

from __future__ import annotations

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
    folder: Path | None = (info.context or {}).get("folder")
    path = Path(value).expanduser()
    if folder is not None and not path.is_absolute() and not path.exists() and (folder / path).exists():
        return str(folder / path)
    return str(path) if value.startswith("~") else value


InputPath = Annotated[str, AfterValidator(_find_input)]
"""A path looked up from the current directory, then from the recipe's folder."""


@dataclass
class Source:
    """A recipe as written: its plain value and the line on which each key stands."""

    name: str
    value: dict[str, Any] = field(default_factory=dict[str, Any])
    lines: dict[Loc, int] = field(default_factory=dict[Loc, int])

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
    loader = yaml.SafeLoader(text)
    source = Source(name)
    try:
        node = loader.get_single_node()
        value: Any = {} if node is None else _construct(loader, node, (), source)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{name}:{mark.line + 1}" if mark else name
        raise RecipeError(f"{place}: not valid YAML: {getattr(error, 'problem', None) or error}") from error
    finally:
        loader.dispose()
    if not isinstance(value, dict):
        raise RecipeError(f"{name}: a recipe is a mapping of keys, found {type(value).__name__}")
    source.value = cast("dict[str, Any]", value)
    return source


def _construct(loader: yaml.SafeLoader, node: yaml.Node, loc: Loc, source: Source) -> Any:
    source.lines.setdefault(loc, node.start_mark.line + 1)
    if isinstance(node, yaml.MappingNode):
        out: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = str(cast(Any, loader.construct_object(key_node)))
            line = key_node.start_mark.line + 1
            if key in out:
                raise RecipeError(f"{source.name}:{line}: the key '{key}' stands twice")
            source.lines[(*loc, key)] = line
            out[key] = _construct(loader, value_node, (*loc, key), source)
        return out
    if isinstance(node, yaml.SequenceNode):
        return [_construct(loader, child, (*loc, i), source) for i, child in enumerate(node.value)]
    return cast(Any, loader.construct_object(node))


def override(value: dict[str, Any], settings: Sequence[str]) -> None:
    """Applies `a.b.c=value` settings (values are YAML) to a plain recipe, in place. List elements go by number."""
    for setting in settings:
        path, equals, text = setting.partition("=")
        if not equals or not path:
            raise RecipeError(f"--set {setting}: write it as key.key=value, e.g. --set tune.epochs=2")
        keys = path.split(".")
        target: Any = value
        for key in keys[:-1]:
            target = _descend(target, key, setting)
        try:
            new = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise RecipeError(f"--set {setting}: the value is not valid YAML") from error
        if isinstance(target, list):
            target[_index(cast("list[Any]", target), keys[-1], setting)] = new
        else:
            target[keys[-1]] = new


def _descend(target: Any, key: str, setting: str) -> Any:
    if isinstance(target, list):
        items = cast("list[Any]", target)
        index = _index(items, key, setting)
        if isinstance(items[index], str):  # a plug-in named without options
            items[index] = {items[index]: {}}
        return items[index]
    child = target.get(key)
    if isinstance(child, str):
        child = {child: {}}
    target[key] = {} if child is None else child
    return target[key]


def _index(items: list[Any], key: str, setting: str) -> int:
    if not key.isdigit() or int(key) >= len(items):
        raise RecipeError(f"--set {setting}: '{key}' is no index of a list of {len(items)}")
    return int(key)


def load(model: type[B], source: Source, settings: Sequence[str] = ()) -> B:
    """The typed tree. Raises RecipeError with every problem at once, each with file:line and a suggestion."""
    override(source.value, settings)
    folder = Path(source.name).parent if Path(source.name).is_file() else None
    try:
        return model.model_validate(source.value, context={"folder": folder})
    except ValidationError as error:
        problems = [_explain(model, source, dict(problem)) for problem in error.errors(include_url=False)]
        raise RecipeError("\n".join(text for _, text in sorted(problems))) from None


def dump(branch: Branch) -> str:
    """A branch as YAML that loads back equal."""
    return yaml.safe_dump(branch.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=110)


def _explain(model: type[Branch], source: Source, problem: dict[str, Any]) -> tuple[int, str]:
    """The line to sort by, and one problem in words."""
    loc, siblings = _locate(model, source.value, problem["loc"])
    line = source.line_of(loc)
    return line or 0, _describe(loc, siblings, problem, f"{source.name}:{line}" if line else source.name)


def _describe(loc: Loc, siblings: list[str], problem: dict[str, Any], place: str) -> str:
    key = ".".join(str(part) for part in loc)
    if problem["type"] == "extra_forbidden":
        known = f"; known here: {', '.join(siblings)}" if siblings else ""
        return f"{place}: unknown key '{key}'{did_you_mean(str(loc[-1]), siblings)}{known}"
    if problem["type"] == "missing":
        return f"{place}: '{key}' is required"
    message = str(problem["msg"]).removeprefix("Value error, ")
    given = problem["input"]
    scalar = isinstance(given, (str, int, float, bool)) and problem["type"] != "choice"
    shown = f", given: {given!r}" if scalar else ""
    return f"{place}: {key}: {message}{shown}" if key else f"{place}: {message}"


def _locate(model: type[Branch], value: Any, loc: Loc) -> tuple[Loc, list[str]]:
    """The place in the file (with plug-in names, which pydantic leaves out) and the keys known beside the last one."""
    found: list[int | str] = []
    owner: Any = model
    siblings: list[str] = []
    for part in loc:
        options = _single(value) if isinstance(owner, Family) else None
        if isinstance(owner, Family):
            if options is None:
                break
            found.append(options[0])
            owner, value = owner.load(options[0]), options[1]
        siblings = list(owner.model_fields) if isinstance(owner, type) and issubclass(owner, Branch) else []
        found.append(part)
        owner = _child(owner, part)
        try:
            value = value[part]
        except (KeyError, IndexError, TypeError):
            value = None
    return tuple(found), siblings


def _single(value: Any) -> tuple[str, Any] | None:
    if isinstance(value, dict) and len(cast("dict[str, Any]", value)) == 1:
        return next(iter(cast("dict[str, Any]", value).items()))
    return None


def _child(owner: Any, part: int | str) -> Any:
    """What stands at `part` below an annotation: a Branch, a Family, or an annotation to go on with."""
    if isinstance(owner, type) and issubclass(owner, Branch):
        info = owner.model_fields.get(str(part))
        if info is None:
            return None
        families = [extra for extra in info.metadata if isinstance(extra, Family)]
        return families[0] if families else _unwrap(info.annotation)
    if get_origin(owner) in (list, tuple):
        return _unwrap(get_args(owner)[0])
    if get_origin(owner) is dict:
        return _unwrap(get_args(owner)[1])
    return None


def _unwrap(annotation: Any) -> Any:
    if get_origin(annotation) is Annotated:
        families = [extra for extra in get_args(annotation)[1:] if isinstance(extra, Family)]
        return families[0] if families else _unwrap(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        inner = [arg for arg in get_args(annotation) if arg is not type(None)]
        return _unwrap(inner[0]) if len(inner) == 1 else annotation
    return annotation
