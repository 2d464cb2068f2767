from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import Field

from tuneloop.core import recipe
from tuneloop.core.errors import RecipeError
from tuneloop.core.plugins import Branch
from tuneloop.core.recipe import InputPath
from tuneloop.data.steps import STEPS, Step
from tuneloop.tune.schedules import FAMILY as SCHEDULES
from tuneloop.tune.schedules import Schedule


class Source(Branch):
    path: InputPath
    """The file."""
    limit: int | None = None
    """Rows."""


class Tree(Branch):
    name: str = "run"
    """A name."""
    rate: float = Field(0.1, gt=0)
    """A rate."""
    length: int | Literal["auto"] = "auto"
    """A length."""
    flag: bool = False
    """A flag."""
    sources: tuple[Source, ...] = ()
    """Files."""
    steps: tuple[Annotated[Step, STEPS], ...] = ()
    """Steps."""
    schedule: Annotated[Schedule, SCHEDULES] = Field("cosine", validate_default=True)  # type: ignore[assignment]
    """A schedule."""
    words: dict[str, str] = Field(default_factory=dict)
    """Words."""


def load(text: str, *changes: str, name: str = "r.yaml") -> Tree:
    return recipe.load(Tree, recipe.parse_yaml(text, name), changes)


def problems(text: str, *changes: str) -> list[str]:
    with pytest.raises(RecipeError) as caught:
        load(text, *changes)
    return str(caught.value).splitlines()


# -- all errors at once ------------------------------------------------------------------------------------------------
def test_every_problem_is_named_at_once_with_its_line_and_a_suggestion() -> None:
    found = problems("""\
name: [a]
rat: 3
sources:
  - {path: x, limt: 3}
  - x.jsonl
  - {limit: 1}
steps:
  - lenght
  - length: {min_words: -1}
  - {exact_duplicates: {of: 3}}
  - contamination
  - contamination: {against: []}
schedule: {cosine: {warmpu: 3}}
length: long
""")
    assert found == [
        "r.yaml:1: name: must be a valid string",
        "r.yaml:2: unknown key 'rat' (did you mean 'rate'?); known here: name, rate, length, flag, sources, steps, "
        "schedule, words",
        "r.yaml:4: unknown key 'sources.0.limt' (did you mean 'limit'?); known here: path, limit",
        "r.yaml:5: sources.1: must be a mapping with the keys path, limit, given: 'x.jsonl'",
        "r.yaml:6: 'sources.2.path' is required",
        f"r.yaml:8: steps.0: no 'lenght' among the steps (did you mean 'length'?); known: {', '.join(STEPS.names())}",
        "r.yaml:9: steps.1.length.min_words: must be greater than or equal to 0, given: -1",
        "r.yaml:10: unknown key 'steps.2.exact_duplicates.of'; it has no options",
        "r.yaml:11: 'steps.3.contamination.against' is required",
        "r.yaml:12: steps.4.contamination.against: must have at least 1 item",
        "r.yaml:13: unknown key 'schedule.cosine.warmpu' (did you mean 'warmup'?); known here: warmup, floor",
        "r.yaml:14: length: must be a valid integer, unable to parse string as an integer; or must be 'auto', "
        "given: 'long'",
    ]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("name: x\nname: y\n", "r.yaml:2: the key 'name' stands twice"),
        ("steps:\n  - length: {min_words: 1, min_words: 2}\n", "r.yaml:2: the key 'min_words' stands twice"),
        ("a: [1\nb: 2", "r.yaml:2: not valid YAML: while parsing a flow sequence, expected ',' or ']', but got ':'"),
        ("name: a\n\tb: c", "r.yaml:2: not valid YAML"),
        ("name: !!python/object:os.system x", "r.yaml:1: not valid YAML: could not determine a constructor"),
        ("name: &a [*a]", "an alias (*name) stands inside itself"),
        ("name: x\n---\nname: y", "r.yaml:2: not valid YAML: expected a single document"),
        ("- a\n", "r.yaml: a recipe is a mapping of keys, found list"),
        ("words: &w {a: b}\nrate: *w\n", "rate: must be a valid number"),
    ],
)
def test_broken_files_are_named_with_the_line(text: str, told: str) -> None:
    assert told in problems(text)[0]


def test_a_file_that_is_missing_or_not_utf8_is_named(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"x\.yaml: no such recipe file"):
        recipe.read_yaml(tmp_path / "x.yaml")
    (tmp_path / "x.yaml").write_bytes("name: 中文".encode("gb18030"))
    with pytest.raises(RecipeError, match=r"x\.yaml: a recipe must be UTF-8"):
        recipe.read_yaml(tmp_path / "x.yaml")


def test_an_empty_recipe_is_all_defaults_and_a_byte_order_mark_is_no_key(tmp_path: Path) -> None:
    assert load("") == load("# nothing\n") == Tree()
    (tmp_path / "r.yaml").write_bytes(b"\xef\xbb\xbfname: x\n")
    assert recipe.load(Tree, recipe.read_yaml(tmp_path / "r.yaml")).name == "x"


# -- --set -------------------------------------------------------------------------------------------------------------
def test_settings_reach_lists_and_the_options_of_plugins() -> None:
    tree = load(
        "sources: [{path: a}, {path: b}]\nsteps: [exact_duplicates, length]\nschedule: linear\n",
        "sources.1.limit=3", "steps.1.length.min_words=2", "schedule.linear.floor=0.5", "words.new=x", "name=中文",
    )  # fmt: skip
    assert tree.sources[1].limit == 3
    assert tree.steps[1].model_dump()["min_words"] == 2
    assert tree.schedule.model_dump()["floor"] == 0.5
    assert (tree.words, tree.name) == ({"new": "x"}, "中文")


def test_a_setting_makes_branches_that_the_file_does_not_have_and_the_last_one_wins() -> None:
    assert load("", "schedule.wsd.decay=0.1", "rate=1", "rate=2") == load("rate: 2\nschedule: {wsd: {decay: 0.1}}")


@pytest.mark.parametrize("text", ["1e-4", "1.0e-4", "0.0001", "1E-4"])
def test_numbers_may_be_written_without_a_point(text: str) -> None:
    assert load("", f"rate={text}").rate == load(f"rate: {text}").rate == 1e-4


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("rate", "--set rate: write it as key.key=value"),
        ("=3", "write it as key.key=value"),
        ("rate=-1", "--set rate=-1: rate: must be greater than 0, given: -1"),
        ("rte=1", "--set rte=1: unknown key 'rte' (did you mean 'rate'?)"),
        ("rate.x=1", "--set rate.x=1: 'rate' is 0.5; nothing can be set below it"),
        ("sources.1.path=x", "'1' is no element of the list: its 1 elements count from 0"),
        ("sources.one=x", "'one' is no element of the list"),
        ("sources.0.limit=x", "--set sources.0.limit=x: sources.0.limit: must be a valid integer"),
        ("name=[", "--set name=[: the value is not valid YAML"),
        ("schedule.cosin.floor=1", "--set schedule.cosin.floor=1: schedule: no 'cosin' among the schedules"),
    ],
)
def test_a_wrong_setting_is_named_itself_and_not_the_file(setting: str, told: str) -> None:
    assert told in problems("rate: 0.5\nsources: [{path: a}]\n", setting)[0]


def test_a_right_setting_replaces_a_wrong_value_of_the_file() -> None:
    assert load("rate: wrong\n", "rate=1").rate == 1


# -- paths and dumping -------------------------------------------------------------------------------------------------
def test_paths_are_looked_up_here_first_and_then_beside_the_recipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "r.yaml").write_text(
        "sources: [{path: only_here}, {path: only_there}, {path: nowhere}, {path: /a}]"
    )
    for file in ("here/only_here", "there/only_there"):
        (tmp_path / file).touch()
    monkeypatch.chdir(tmp_path / "here")
    tree = recipe.load(Tree, recipe.read_yaml(Path("../there/r.yaml")))
    assert [source.path for source in tree.sources] == ["only_here", "../there/only_there", "nowhere", "/a"]


def test_a_home_folder_is_written_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert load("sources: [{path: ~/a.jsonl}]").sources[0].path == "/home/me/a.jsonl"


text = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=12)
trees = st.fixed_dictionaries(
    {},
    optional={
        "name": text | st.sampled_from(["1e-4", "no", "null", "2024-01-01", "~", "0x1", "- a", "a: b", "'"]),
        "rate": st.floats(1e-30, 1e30),
        "length": st.just("auto") | st.integers(),
        "flag": st.booleans(),
        "sources": st.lists(st.fixed_dictionaries({"path": text.filter(lambda t: not t.startswith("~"))}), max_size=2),
        "steps": st.lists(st.sampled_from(["length", {"length": {"max_words": 3}}, "exact_duplicates"]), max_size=3),
        "schedule": st.sampled_from(["cosine", {"linear": {"floor": 1e-9}}, {"wsd": {"decay": 0.3}}, "constant"]),
        "words": st.dictionaries(text, text, max_size=2),
    },
)


@settings(max_examples=60)
@given(trees)
def test_what_is_dumped_loads_back_equal(value: dict[str, Any]) -> None:
    tree = Tree.model_validate(value)
    assert load(recipe.dump(tree)) == tree


# -- paths -------------------------------------------------------------------------------------------------------------
def test_a_path_that_means_two_files_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, here = tmp_path / "recipes", tmp_path / "here"
    for place in (folder, here):
        place.mkdir()
    (folder / "r.yaml").write_text("sources: [{path: rows.jsonl}]\n")
    (folder / "rows.jsonl").write_text("{}\n")
    monkeypatch.chdir(here)
    assert recipe.load(Tree, recipe.read_yaml(folder / "r.yaml")).sources[0].path == str(folder / "rows.jsonl")
    (here / "rows.jsonl").write_text("{}\n")
    with pytest.raises(RecipeError, match="two of that name"):
        recipe.load(Tree, recipe.read_yaml(folder / "r.yaml"))
    monkeypatch.chdir(folder)
    assert recipe.load(Tree, recipe.read_yaml(folder / "r.yaml")).sources[0].path == "rows.jsonl"
