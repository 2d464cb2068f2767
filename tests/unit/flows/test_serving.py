"""Services put together from a recipe or the command line, and keys made there."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import httpx
import pytest
from serving import until

from tuneloop.core.errors import RecipeError, StoreError
from tuneloop.flows import serving

QUIET = {**os.environ, "OMP_NUM_THREADS": "1"}


def here(tmp_path: Path) -> Any:
    return serving.settings(None, [f"serve.store=sqlite:///{tmp_path}/s.db", f"serve.secret_file={tmp_path}/secret"])


def test_settings_come_from_the_command_line_and_are_checked_at_once() -> None:
    config = serving.settings(None, ["serve.port=9000", "serve.limits.timeout=5"], {"a.b": "run"})
    assert (config.port, config.limits.timeout, config.adapters) == (9000, 5.0, {"a.b": "run"})
    with pytest.raises(RecipeError, match="did you mean 'port'"):
        serving.settings(None, ["serve.prt=9000"])


def test_a_recipe_has_a_branch_for_it(tmp_path: Path) -> None:
    recipe = tmp_path / "r.yaml"
    recipe.write_text("data: {sources: [{path: x.jsonl}]}\nserve: {port: 9001, limits: {choices: 2}}\n")
    (tmp_path / "x.jsonl").write_text("")
    assert serving.settings(recipe, []).limits.choices == 2


def test_keys_are_made_listed_and_revoked(tmp_path: Path) -> None:
    config = here(tmp_path)
    made = serving.create_key(config, "ann", ["chat", "rate"])
    assert made["key"].startswith("tl-") and made["good"]
    (listed,) = serving.list_keys(config)
    assert "key" not in listed and listed["roles"] == ["chat", "rate"]
    serving.revoke_key(config, made["id"])
    assert not serving.list_keys(config)[0]["good"]
    with pytest.raises(StoreError, match="no role"):
        serving.create_key(config, "ann", ["root"])


def test_another_interface_without_a_key_does_not_even_load_the_model(tmp_path: Path) -> None:
    config = here(tmp_path).model_copy(update={"host": "0.0.0.0"})
    with pytest.raises(RecipeError, match="keys create"):
        serving.serve("no such model", tmp_path, config)


def test_the_command_serves_the_embedded_model_and_drains_on_a_signal(tmp_path: Path) -> None:
    """The real command, the real model, by HTTP."""
    command = "import sys; from tuneloop.cli.main import main; main()"
    arguments = ["serve", "embedded", "--port", "0", "--json"]
    process = subprocess.Popen(
        [sys.executable, "-c", command, *arguments], cwd=tmp_path, env=QUIET, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    lines: list[str] = []
    assert process.stderr is not None and process.stdout is not None
    reader = threading.Thread(target=lambda: lines.extend(process.stderr))  # type: ignore[arg-type]
    reader.start()
    try:
        until(lambda: _port(lines) or process.poll() is not None, 120)
        port = _port(lines)
        body = {"model": "embedded", "messages": [{"role": "user", "content": "Say yes."}], "max_tokens": 8}
        answer = httpx.post(f"http://127.0.0.1:{port}/v1/chat/completions", json=body, timeout=60)
        assert answer.status_code == 200 and answer.json()["usage"]["completion_tokens"] > 0, answer.text
    finally:
        process.send_signal(signal.SIGTERM)
        out = process.stdout.read()
        code = process.wait(60)
        reader.join()
    assert code == 0, "".join(lines)
    assert json.loads(out.splitlines()[-1]) == {"served": "embedded"}
    assert oct((tmp_path / "tuneloop.secret").stat().st_mode)[-3:] == "600"


def _port(lines: list[str]) -> int | None:
    found = [line for line in lines if "listening on port" in line]
    return int(found[0].rsplit(" ", 1)[1]) if found else None
