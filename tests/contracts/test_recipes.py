"""Every recipe that ships is a recipe, and the schema that editors read says so too."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from tuneloop.core import docstrings
from tuneloop.core import recipe as loading
from tuneloop.core.plugins import Branch
from tuneloop.flows.recipe import Recipe, load_recipe
from tuneloop.flows.reference import families, schema

ROOT = Path(__file__).resolve().parents[2]
RECIPES = sorted([
    *(ROOT / "examples").rglob("*.yaml"), *(ROOT / "seedling").glob("recipe*.yaml"),
    *(ROOT / "src" / "tuneloop" / "flows").rglob("recipe.yaml"),
])  # fmt: skip
NAMES = [str(path.relative_to(ROOT)) for path in RECIPES]


@cache  # a quarter of a second each time
def known_schema() -> dict[str, Any]:
    """`schema()`, to be read only."""
    return schema()


def test_there_are_examples() -> None:
    assert len([path for path in RECIPES if path.is_relative_to(ROOT / "examples")]) >= 4


@pytest.mark.parametrize("path", RECIPES, ids=NAMES)
def test_every_shipped_recipe_parses_and_loads_back_equal(path: Path) -> None:
    recipe = load_recipe(path)
    again = loading.load(Recipe, loading.parse_yaml(loading.dump(recipe), "dumped"))
    assert again == recipe


@pytest.mark.parametrize("path", RECIPES, ids=NAMES)
def test_every_shipped_recipe_begins_by_saying_what_it_is(path: Path) -> None:
    assert path.read_text("utf-8").startswith("# ")


# -- the schema --------------------------------------------------------------------------------------------------------
def fits(value: Any, rule: dict[str, Any], whole: dict[str, Any], place: str = "") -> list[str]:
    """Where a value breaks a schema: the keywords of JSON Schema that pydantic writes for us. [] when it fits."""
    if "$ref" in rule:
        return fits(value, whole["$defs"][rule["$ref"].rpartition("/")[2]], whole, place)
    if "anyOf" in rule:
        tried = [fits(value, choice, whole, place) for choice in rule["anyOf"]]
        return [] if any(not found for found in tried) else min(tried, key=len)
    if "const" in rule and value != rule["const"]:
        return [f"{place}: not {rule['const']!r}"]
    if "enum" in rule and value not in rule["enum"]:
        return [f"{place}: {value!r} is none of {rule['enum']}"]
    kinds = {"object": dict, "array": list, "string": str, "integer": int, "number": (int, float), "boolean": bool,
             "null": type(None)}  # fmt: skip
    kind = rule.get("type")
    if kind and (not isinstance(value, kinds[kind]) or (kind in ("integer", "number") and isinstance(value, bool))):
        return [f"{place}: {value!r} is no {kind}"]
    found: list[str] = []
    if isinstance(value, dict):
        known = rule.get("properties", {})
        found += [f"{place}: {key} is missing" for key in rule.get("required", []) if key not in value]
        for key, inner in value.items():
            if key in known:
                found += fits(inner, known[key], whole, f"{place}.{key}")
            elif rule.get("additionalProperties") is False:
                found.append(f"{place}: {key} is not known")
    if isinstance(value, list):
        for number, inner in enumerate(value):
            found += fits(inner, rule.get("items", {}), whole, f"{place}[{number}]")
    return found


def test_the_schema_is_one_that_editors_understand() -> None:
    printed = subprocess.run(
        [sys.executable, "-m", "tuneloop.cli.main", "schema"], capture_output=True, text=True, check=True
    ).stdout
    found = json.loads(printed)
    assert found == known_schema()
    assert found["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    references = {part.partition('"')[0] for part in printed.split('"#/$defs/')[1:]}
    assert references <= set(found["$defs"])


@pytest.mark.parametrize("path", RECIPES, ids=NAMES)
def test_the_schema_accepts_every_shipped_recipe_as_written(path: Path) -> None:
    whole = known_schema()
    assert fits(loading.read_yaml(path).value, whole, whole) == []


@pytest.mark.parametrize(
    "wrong",
    [
        {}, {"data": {"sources": 3}}, {"data": {"sources": [{"path": "x"}]}, "tune": {"metod": "lora"}},
        {"data": {"sources": [{"path": "x"}]}, "tune": {"method": {"lora": {"rank": "high"}}}},
        {"data": {"sources": [{"path": "x"}]}, "tune": {"method": "lorra"}},
    ],
)  # fmt: skip
def test_the_schema_refuses_what_the_loader_refuses(wrong: dict[str, Any]) -> None:
    whole = known_schema()
    assert fits(wrong, whole, whole) != []
    with pytest.raises(loading.RecipeError):
        loading.load(Recipe, loading.Source("r", wrong))


# -- the branches ------------------------------------------------------------------------------------------------------
def branches(model: type[BaseModel], found: dict[str, type[BaseModel]]) -> dict[str, type[BaseModel]]:
    found[f"{model.__module__}.{model.__name__}"] = model
    for field in model.model_fields.values():
        for part in (field.annotation, *getattr(field.annotation, "__args__", ())):
            if isinstance(part, type) and issubclass(part, Branch) and part not in found.values():
                branches(part, found)
    return found


BRANCHES = branches(Recipe, {})
for _family in families().values():
    for _name in _family.names():
        BRANCHES |= branches(_family.load(_name), {})


@pytest.mark.parametrize("name", BRANCHES)
def test_every_branch_is_small_and_every_field_documented(name: str) -> None:
    model = BRANCHES[name]
    assert {key for key in model.model_fields if not docstrings.of_fields(model).get(key)} == set()
    assert (model.__doc__ or "").strip()
    assert len(model.model_fields) <= 16


def test_the_branches_were_found() -> None:
    found = {name.rpartition(".")[2] for name in BRANCHES}
    assert {
        "Recipe",
        "ModelConfig",
        "DataConfig",
        "SourceConfig",
        "TuneConfig",
        "EarlyStopping",
        "EvaluateConfig",
    } <= found


# -- the documentation -------------------------------------------------------------------------------------------------
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
SNIPPETS = [
    (f"{path.name}:{path.read_text('utf-8')[: found.start()].count(chr(10)) + 1}", found[1])
    for path in PAGES
    for found in re.finditer(r"^```yaml\n(.*?)^```", path.read_text("utf-8"), re.DOTALL | re.MULTILINE)
]


@pytest.mark.parametrize(("place", "text"), SNIPPETS, ids=[place for place, _ in SNIPPETS])
def test_every_snippet_in_the_docs_is_a_part_of_a_recipe(place: str, text: str) -> None:
    value, whole = yaml.safe_load(text), known_schema()
    rules = [whole, *whole["$defs"].values()]
    of_steps = isinstance(value, list) and value[0].keys() <= set(families()["steps"].names())
    parts = [{"steps": value}] if of_steps else value if isinstance(value, list) else [value]
    for part in parts:
        known = [rule for rule in rules if part.keys() <= rule.get("properties", {}).keys()]
        tried = [[line for line in fits(part, rule, whole) if not line.endswith("is missing")] for rule in known]
        assert [] in tried, tried or f"no branch of a recipe has the keys {', '.join(part)}"


def test_the_options_of_methods_in_the_docs_are_those_that_there_are() -> None:
    text = (ROOT / "docs" / "methods.md").read_text("utf-8")
    sections = {part.partition("\n")[0]: part for part in text.split("\n## ")[1:]}
    family = families()["methods"]
    assert set(family.names()) - {"full"} <= sections.keys()
    for name in set(family.names()) - {"full"}:
        rows = re.findall(r"^\| (`.*?) \|", sections[name], re.MULTILINE)
        told = {option for row in rows for option in re.findall(r"`(\w+)", row)}
        own = set(family.load(name).model_fields) - (
            {*family.load("lora").model_fields} if name in ("dora", "qlora") else set()
        )
        assert told == own, name
