"""Rules that every file of the package keeps: no dangerous call, no junk drawer, small, documented."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted((ROOT / "src" / "tuneloop").rglob("*.py"))
NAMES = [str(path.relative_to(ROOT / "src" / "tuneloop")) for path in FILES]
FORBIDDEN_NAMES = {"utils", "util", "helpers", "helper", "common", "misc", "base"}
FORBIDDEN_IMPORTS = {"pickle", "cloudpickle", "dill", "shelve", "marshal", "joblib"}
FORBIDDEN_CALLS = {
    "eval", "exec", "compile", "__import__", "torch.load", "torch.hub.load", "pickle.load", "pickle.loads", "os.system",
    "os.popen", "yaml.load", "numpy.load", "np.load", "input",
}  # fmt: skip
FORBIDDEN_KEYWORDS = {("trust_remote_code", True), ("shell", True), ("allow_pickle", True), ("weights_only", False)}
Function = ast.FunctionDef | ast.AsyncFunctionDef


def dotted(node: ast.expr) -> str:
    if isinstance(node, ast.Name):
        return node.id
    return f"{dotted(node.value)}.{node.attr}" if isinstance(node, ast.Attribute) else ""


def dangers(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            if dotted(node.func) in FORBIDDEN_CALLS:
                yield f"line {node.lineno}: {dotted(node.func)}"
            for keyword in node.keywords:
                if isinstance(keyword.value, ast.Constant) and (keyword.arg, keyword.value.value) in FORBIDDEN_KEYWORDS:
                    yield f"line {node.lineno}: {keyword.arg}={keyword.value.value}"
        if isinstance(node, ast.Import):
            yield from (f"line {node.lineno}: import {a.name}" for a in node.names if a.name in FORBIDDEN_IMPORTS)
        if isinstance(node, ast.ImportFrom) and node.module in FORBIDDEN_IMPORTS:
            yield f"line {node.lineno}: from {node.module}"
        if isinstance(node, ast.ExceptHandler) and node.type is None:
            yield f"line {node.lineno}: except without a type"


def functions(tree: ast.AST) -> Iterator[Function]:
    yield from (node for node in ast.walk(tree) if isinstance(node, Function))


@pytest.fixture(params=FILES, ids=NAMES)
def parsed(request: pytest.FixtureRequest) -> tuple[Path, ast.Module]:
    return request.param, ast.parse(request.param.read_text("utf-8"))


def test_no_file_runs_code_from_data(parsed: tuple[Path, ast.Module]) -> None:
    assert list(dangers(parsed[1])) == []


def test_the_rule_finds_what_it_forbids() -> None:
    wrong = "import pickle\nx = torch.load(f)\nrun(x, shell=True)\nload(trust_remote_code=True)\neval(x)\n"
    assert len(list(dangers(ast.parse(wrong)))) == 5
    assert list(dangers(ast.parse("run(x, shell=False)\nmodel.eval()\nre.compile(x)"))) == []


def test_files_and_functions_are_small(parsed: tuple[Path, ast.Module]) -> None:
    path, tree = parsed
    assert len(path.read_text("utf-8").splitlines()) <= 400
    long = {node.name: node.end_lineno - node.lineno + 1 for node in functions(tree) if node.end_lineno is not None}
    assert {name: lines for name, lines in long.items() if lines > 70} == {}


def test_every_file_and_public_name_says_what_it_is_for(parsed: tuple[Path, ast.Module]) -> None:
    tree = parsed[1]
    assert ast.get_docstring(tree)
    public = [
        node for node in tree.body if isinstance(node, (Function, ast.ClassDef)) and not node.name.startswith("_")
    ]
    assert [node.name for node in public if not ast.get_docstring(node)] == []


def test_there_is_no_junk_drawer() -> None:
    assert [name for path, name in zip(FILES, NAMES, strict=True) if path.stem in FORBIDDEN_NAMES] == []


def test_no_file_names_a_path_of_one_machine() -> None:
    for path in FILES:
        text = path.read_text("utf-8")
        assert not any(place in text for place in ("/work/", "/home/", "/root/", "C:\\\\Users")), path
