"""schemathesis against the OpenAPI document: whatever it invents, no server errors, and answers as documented."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from serving import listening, make

schemathesis = pytest.importorskip("schemathesis")


@pytest.fixture(scope="module")
def url_and_headers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, dict[str, str]]]:
    limits = {"requests_per_minute": 10**6, "feedback_per_minute": 10**6}
    made, _ = make(tmp_path_factory.mktemp("conformance"), open_to_all=False, limits=limits)
    key = made.store.keys.create("conformance", ["chat", "rate", "admin"])
    with listening(made) as (url, _):
        yield url, {"Authorization": f"Bearer {key}"}


@pytest.fixture
def api(url_and_headers: Any) -> Any:
    url, headers = url_and_headers
    return schemathesis.openapi.from_url(f"{url}/openapi.json", headers=headers)


lazy = schemathesis.pytest.from_fixture("api")


@lazy.parametrize()
@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
def test_no_server_errors_and_only_documented_answers(case: Any, url_and_headers: Any) -> None:
    headers = url_and_headers[1]
    response = case.call(headers=headers)
    assert response.status_code < 500, response.text
    case.validate_response(response, headers=headers)
