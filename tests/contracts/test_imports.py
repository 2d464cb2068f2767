"""Which room may import which, and that importing costs nothing."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from shell import write_recipe

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src" / "tuneloop"
HEAVY = ("torch", "transformers", "peft", "accelerate", "tokenizers", "safetensors", "numpy", "pandas", "polars",
         "scipy", "matplotlib", "tensorboard")  # fmt: skip
PROBE = """
import importlib, json, sys
for name in json.loads(sys.argv[1]):
    importlib.import_module(name)
print(json.dumps(sorted(set(json.loads(sys.argv[2])) & set(sys.modules))))
"""


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT / "src").with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def light_modules() -> list[str]:
    """Packages, configurations, plug-ins, core and the command line: what every start or schema may import."""
    from tuneloop.flows.reference import families

    folders = [
        SOURCE / "core",
        SOURCE / "cli",
        *(ROOT / "src" / f.package.replace(".", "/") for f in families().values()),
    ]
    paths = {*SOURCE.rglob("__init__.py"), *SOURCE.rglob("config.py"), *(p for f in folders for p in f.glob("*.py"))}
    paths |= {SOURCE / "flows" / "recipe.py", SOURCE / "flows" / "reference.py", SOURCE / "track" / "console.py"}
    return sorted(map(module_of, paths))


def heavy_after(*modules: str) -> list[str]:
    answer = subprocess.run(
        [sys.executable, "-c", PROBE, json.dumps(modules), json.dumps(HEAVY)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert answer.stderr == ""
    return json.loads(answer.stdout)


def test_the_house_stands() -> None:
    """The floors of the design, as import-linter reads them from pyproject.toml."""
    paths = os.pathsep.join(filter(None, (str(ROOT / "src"), os.environ.get("PYTHONPATH"))))
    checked = subprocess.run(
        [sys.executable, "-c", "from importlinter.cli import lint_imports_command; lint_imports_command()",
         "--no-cache", "--config", "pyproject.toml"],
        cwd=ROOT, env=os.environ | {"PYTHONPATH": paths}, capture_output=True, text=True,
    )  # fmt: skip
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "2 kept, 0 broken" in checked.stdout


def test_importing_packages_configurations_and_plugins_is_light() -> None:
    modules = light_modules()
    assert {"tuneloop", "tuneloop.tune.methods.lora", "tuneloop.evaluate.metrics.f1", "tuneloop.data.config"} <= {
        *modules
    }
    assert heavy_after(*modules) == []


def test_importing_the_package_is_only_the_package() -> None:
    probe = "import sys; before = set(sys.modules); import tuneloop; print(*(set(sys.modules) - before))"
    listed = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert listed.stdout.split() == ["tuneloop"]


def loaded_after(folder: Path, *arguments: object) -> set[str]:
    """The modules of a process that has done a command."""
    probe = (
        "import atexit, json, sys; from pathlib import Path; from tuneloop.cli.main import main; "
        "atexit.register(lambda: Path('modules.json').write_text(json.dumps([*sys.modules]))); main()"
    )
    typed = [sys.executable, "-c", probe, *map(str, arguments)]
    answer = subprocess.run(typed, cwd=folder, capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr
    return set(json.loads((folder / "modules.json").read_text("utf-8")))


def test_a_command_is_built_without_the_others(tmp_path: Path) -> None:
    loaded = loaded_after(tmp_path, "tune", "--help")
    commands = {path.stem for path in (SOURCE / "cli").glob("*.py")} - {"__init__", "main", "options"}
    assert {name for name in commands if f"tuneloop.cli.{name}" in loaded} == {"tune"}
    assert not {"pydantic", "yaml", *HEAVY} & loaded


def test_data_is_prepared_and_its_tokens_counted_without_torch(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, {"base": "embedded"})
    loaded = loaded_after(tmp_path, "prepare", recipe)
    card = json.loads(next(tmp_path.glob("runs/*/out/card.json")).read_text("utf-8"))
    assert card["tokens"]
    assert "tokenizers" in loaded  # that is: the tokens were counted
    assert not {"torch", "peft", "accelerate", "scipy", "matplotlib", "pandas", "sqlalchemy", "fastapi"} & loaded


def test_a_start_loads_no_library_that_its_work_does_not_need(tmp_path: Path) -> None:
    """What transformers imports by itself is not ours to save: scipy where it is installed, torch._dynamo, sympy."""
    recipe = write_recipe(tmp_path, {"base": "embedded"}, method="full")
    loaded = loaded_after(tmp_path, "tune", recipe, "--set", "track.to=[]")
    assert "tuneloop.tune.loop" in loaded
    others = {"peft", "bitsandbytes", "sklearn", "pandas", "pyarrow", "datasets", "matplotlib", "tensorboard"}
    assert not (others | {"sqlalchemy", "fastapi", "nicegui", "uvicorn", "wandb", "mlflow", "llguidance"}) & loaded


def test_no_file_of_ours_imports_scipy() -> None:
    """Where it is installed, each start of transformers is longer, so it is no dependency; tests may have it."""
    imports = re.compile(r"^\s*(import|from) scipy\b", re.MULTILINE)
    assert [path for path in SOURCE.rglob("*.py") if imports.search(path.read_text("utf-8"))] == []


@pytest.mark.parametrize("arguments", [["schema"], ["list"], ["runs", "list"], ["bases"], ["--version"]])
def test_commands_that_only_look_load_nothing_heavy(arguments: list[str], tmp_path: Path) -> None:
    probe = (
        f"import atexit, sys; atexit.register(lambda: print('HEAVY', *(set({HEAVY!r}) & set(sys.modules)), "
        "file=sys.stderr)); from tuneloop.cli.main import main; main()"
    )
    answer = subprocess.run([sys.executable, "-c", probe, *arguments], cwd=tmp_path, capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr
    assert answer.stderr.splitlines()[-1] == "HEAVY"
