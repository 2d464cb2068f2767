from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import pytest
from pydantic import TypeAdapter, ValidationError

from tuneloop.core import recipe
from tuneloop.core.plugins import Branch, Family, Plugin

INTERFACE = '''
from abc import ABC, abstractmethod
from tuneloop.core.plugins import Family, Plugin

class Shape(Plugin, ABC):
    """A shape."""
    @abstractmethod
    def area(self) -> float: ...

SHAPES = Family("shapes", __name__, Shape)
'''
SQUARE = '''
from pydantic import Field
from PACKAGE import Shape

class Square(Shape):
    """Four equal sides."""
    side: float = Field(1.0, gt=0)
    """Length of a side."""
    def area(self) -> float:
        return self.side ** 2
'''
CIRCLE = SQUARE.replace("Square", "Circle").replace("side", "radius").replace("** 2", "** 2 * 3")
PICTURE = '''
from PACKAGE import Shape
from tuneloop.core.recipe import InputPath

class Picture(Shape):
    """Read from a file."""
    path: InputPath
    """The file."""
    def area(self) -> float:
        return 0.0
'''
Make = Callable[..., Any]


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[Make]:
    """`package(square=SQUARE)`: the family of a package with these files."""
    name = f"shapes_{abs(hash(request.node.name))}"
    monkeypatch.syspath_prepend(tmp_path)

    def make(**files: str) -> Any:
        folder = tmp_path / name
        folder.mkdir()
        for stem, text in {"__init__": INTERFACE, **files}.items():
            (folder / f"{stem}.py").write_text(text.replace("PACKAGE", name))
        return __import__(name).SHAPES

    yield make
    for module in [key for key in sys.modules if key.split(".")[0] == name]:
        del sys.modules[module]


def branch(family: Family[Any]) -> type[Branch]:
    class Drawing(Branch):
        shape: Annotated[family.interface, family]  # type: ignore[name-defined]
        more: tuple[Annotated[family.interface, family], ...] = ()  # type: ignore[name-defined]

    return Drawing


def load(family: Family[Any], value: dict[str, Any], folder: Path | None = None) -> Any:
    return branch(family).model_validate(value, context={"folder": folder})


def test_listing_imports_no_plugin(package: Make) -> None:
    family = package(square=SQUARE, circle="raise RuntimeError('imported')", _hidden="x = 1")
    assert family.names() == ["circle", "square"]
    assert not any(name.endswith((".circle", ".square")) for name in sys.modules)


def test_a_choice_is_a_name_or_a_name_with_options(package: Make) -> None:
    family = package(square=SQUARE, circle=CIRCLE)
    drawing = load(family, {"shape": "square", "more": [{"circle": {"radius": 2}}, {"square": None}]})
    assert [shape.area() for shape in (drawing.shape, *drawing.more)] == [1, 12, 1]
    assert family.name_of(drawing.more[0]) == "circle"
    dumped = drawing.model_dump(mode="json")
    assert dumped == {
        "shape": {"square": {"side": 1.0}},
        "more": [{"circle": {"radius": 2.0}}, {"square": {"side": 1.0}}],
    }
    assert load(family, dumped).model_dump() == drawing.model_dump()


def test_an_instance_made_in_python_is_a_choice_as_well(package: Make) -> None:
    family = package(square=SQUARE)
    shape = family.load("square")(side=3)
    assert load(family, {"shape": shape}).model_dump(mode="json")["shape"] == {"square": {"side": 3.0}}


def test_a_misspelt_name_gets_a_suggestion_and_the_list(package: Make) -> None:
    family = package(square=SQUARE, circle=CIRCLE)
    with pytest.raises(KeyError, match=r"no 'sqare' among the shapes .did you mean 'square'..; known: circle, square"):
        family.load("sqare")
    with pytest.raises(ValidationError, match=r"no 'sqare' among the shapes"):
        load(family, {"shape": "sqare"})


@pytest.mark.parametrize("choice", [3, [], {}, {"square": {}, "circle": {}}, None])
def test_what_is_no_choice_is_told_how_to_write_one(package: Make, choice: Any) -> None:
    family = package(square=SQUARE, circle=CIRCLE)
    with pytest.raises(ValidationError, match=r"write one name or one \{name: \{options\}\} of: circle, square"):
        load(family, {"shape": choice})


def test_wrong_options_are_named_with_their_place(package: Make) -> None:
    family = package(square=SQUARE)
    with pytest.raises(ValidationError) as caught:
        load(family, {"shape": {"square": {"side": -1}}, "more": [{"square": {"sides": 1}}]})
    assert [error["loc"] for error in caught.value.errors()] == [("shape", "side"), ("more", 0, "sides")]


def test_paths_among_the_options_are_found_beside_the_recipe(package: Make, tmp_path: Path) -> None:
    family = package(picture=PICTURE)
    (tmp_path / "cat.png").touch()
    drawing = load(family, {"shape": {"picture": {"path": "cat.png"}}}, tmp_path)
    assert drawing.shape.path == str(tmp_path / "cat.png")


@pytest.mark.parametrize("text", [SQUARE + "\nclass Other(Square):\n    pass\n", "x = 1\n"])
def test_a_file_defines_exactly_one_plugin(package: Make, text: str) -> None:
    with pytest.raises(AssertionError, match="exactly one plug-in"):
        package(square=text).load("square")


def install(folder: Path, family: Family[Any], name: str) -> None:
    """An installed package that brings one more shape."""
    outside = "from tuneloop.core.plugins import Plugin\n" + CIRCLE.replace("PACKAGE", family.package)
    (folder / "outside_shapes.py").write_text(outside)
    info = folder / "outside-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: outside\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[tuneloop.shapes]\n{name} = outside_shapes:Circle\n")


def test_an_installed_package_never_takes_the_place_of_a_plugin_in_silence(package: Make, tmp_path: Path) -> None:
    family = package(square=SQUARE)
    install(tmp_path, family, "square")
    with pytest.raises(KeyError, match="'square' stands twice among the shapes"):
        family.load("square")


def test_installed_packages_join_by_entry_point(package: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    family = package(square=SQUARE)
    install(tmp_path, family, "round")
    assert family.names() == ["round", "square"]
    assert "outside_shapes" not in sys.modules
    assert load(family, {"shape": {"round": {"radius": 1}}}).shape.area() == 3
    monkeypatch.delitem(sys.modules, "outside_shapes")


def test_the_schema_lists_names_options_and_their_documentation(package: Make) -> None:
    schema = branch(package(square=SQUARE, circle=CIRCLE)).model_json_schema()
    choices = schema["properties"]["shape"]["anyOf"]
    assert choices[0] == {"enum": ["circle", "square"]}
    square = next(choice["properties"]["square"] for choice in choices[1:] if "square" in choice["properties"])
    assert square["properties"]["side"]["description"] == "Length of a side."
    assert square["additionalProperties"] is False


def test_branches_are_frozen_and_refuse_unknown_keys() -> None:
    class Size(Branch):
        width: int = 3
        """In millimetres."""

    with pytest.raises(ValidationError, match="frozen"):
        Size().width = 4  # type: ignore[misc]
    with pytest.raises(ValidationError, match="not permitted"):
        TypeAdapter(Size).validate_python({"hight": 1})
    assert Size.model_json_schema()["properties"]["width"]["description"] == "In millimetres."
    assert recipe.dump(Size()) == "width: 3\n"
    assert issubclass(Plugin, Branch)
