"""Services put together from a recipe or the command line, and keys made there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from serving import Command

from tuneloop.core.errors import RecipeError, StoreError
from tuneloop.flows import serving


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
    with Command(tmp_path, "embedded", "--json") as served:
        body = {"model": "embedded", "messages": [{"role": "user", "content": "Say yes."}], "max_tokens": 8}
        answer = httpx.post(f"{served.url}/v1/chat/completions", json=body, timeout=60)
        assert answer.status_code == 200 and answer.json()["usage"]["completion_tokens"] > 0, answer.text
        code, out = served.end()
    assert code == 0, "".join(served.lines)
    assert json.loads(out.splitlines()[-1]) == {"served": "embedded"}
    assert oct((tmp_path / "tuneloop.secret").stat().st_mode)[-3:] == "600"
