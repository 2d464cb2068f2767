"""What is written in Triton is translated into a GPU's code, which needs no GPU, and computes what it should."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

BESIDE = Path(sys.prefix) / "beside"
"""Where the Makefile puts Triton, apart from all else."""
HERE = Path(__file__).parent
pytestmark = pytest.mark.skipif(not (BESIDE / "triton").is_dir(), reason="Triton is not installed beside")

TRANSLATED = """
import inspect
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from tuneloop.forward import gpu

FLAGS = {"WEIGHED", "BACK", "SLOPES", "DFT"}
KINDS = {name: "i32" for name in ("size", "tokens", "of_token", "of_head", "heads", "count")}
KINDS |= {name: "*fp32" for name in ("factor_T", "of_weight_PE", "weights_N", "nll_N", "mean_N")}
KINDS |= {"epsilon": "fp32", "smoothing": "fp32", "target_N": "*i64"}
programs = [one for one in vars(gpu).values() if isinstance(one, triton.JITFunction) and one is not gpu._exact]
for generation in (80, 90):
    for numbers in ("bf16", "fp32"):
        for program in programs:
            names = inspect.signature(program.fn).parameters
            constants = {name: True for name in names if name in FLAGS} | {"BLOCK": 1024}
            kinds = {name: "constexpr" if name in constants else KINDS.get(name, "*" + numbers) for name in names}
            source = ASTSource(fn=program, signature=kinds, constexprs=constants)
            made = triton.compile(source, target=GPUTarget("cuda", generation, 32))
            print(program.fn.__name__, generation, numbers, len(made.asm["cubin"]))
"""


def with_triton(tmp_path: Path, *arguments: str, interpreted: bool) -> str:
    paths = os.pathsep.join([str(BESIDE), str(HERE.parents[2]), os.environ.get("PYTHONPATH", "")])
    more = {"PYTHONPATH": paths, "TRITON_INTERPRET": str(int(interpreted)), "TRITON_CACHE_DIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, *arguments], env=os.environ | more, capture_output=True, text=True, cwd=HERE.parents[2]
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    return done.stdout


def test_all_of_it_is_translated_for_ampere_and_hopper(tmp_path: Path) -> None:
    lines = [line.split() for line in with_triton(tmp_path, "-c", TRANSLATED, interpreted=False).splitlines()]
    names = {"_norm", "_norm_back", "_turn", "_gated", "_gated_back", "_likelihood"}
    assert {line[0] for line in lines} == names and len(lines) == 4 * len(names)
    assert all(int(line[3]) > 1000 for line in lines)


def test_it_computes_what_it_should(tmp_path: Path) -> None:
    said = with_triton(tmp_path, "-m", "pytest", "-p", "no:cacheprovider", str(HERE / "by_triton.py"), interpreted=True)
    passed = re.search(r"(\d+) passed", said)
    assert passed and int(passed[1]) >= 25 and "skipped" not in said, said
