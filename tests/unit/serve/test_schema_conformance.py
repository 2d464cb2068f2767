"""schemathesis against the OpenAPI document: whatever it invents, no server errors, and answers as documented."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from serving import listening, make

schemathesis = pytest.importorskip("schemathesis")
from schemathesis import GenerationMode  # noqa: E402
from schemathesis.checks import positive_data_acceptance  # noqa: E402

EXAMPLES = 15  # of each operation; more by hand: HYPOTHESIS_EXAMPLES=500 pytest …


def test_no_server_errors_and_only_documented_answers(tmp_path: Path) -> None:
    """Operation by operation: schemathesis' own pytest plug-in does not work with this pytest.

    One check is left out: what fits the schema may be refused, because limits and what goes together are no schema.
    """
    limits = {"requests_per_minute": 10**6, "feedback_per_minute": 10**6}
    service, _ = make(tmp_path, open_to_all=False, limits=limits)
    headers = {"Authorization": f"Bearer {service.store.keys.create('conformance', ['chat', 'rate', 'admin'])}"}
    seen = 0
    with listening(service) as (url, _):
        schema = schemathesis.openapi.from_url(f"{url}/openapi.json", headers=headers)
        for found in schema.get_all_operations():
            operation = found.ok()
            for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
                _conforms(operation.as_strategy(generation_mode=mode), headers)
            seen += 1
    assert seen == 14


def _conforms(strategy: Any, headers: dict[str, str]) -> None:
    @settings(max_examples=int(os.environ.get("HYPOTHESIS_EXAMPLES", EXAMPLES)), deadline=None, database=None,
              suppress_health_check=list(HealthCheck), derandomize=True)  # fmt: skip
    @given(strategy)
    def ask(case: Any) -> None:
        response = case.call(headers=headers)
        assert response.status_code < 500, response.text
        case.validate_response(response, headers=headers, excluded_checks=[positive_data_acceptance])

    with suppress(Unsatisfiable):  # nothing can be wrong with a request that has neither fields nor parameters
        ask()
