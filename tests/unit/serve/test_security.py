"""Every security rule that concerns a server, each as a test of its own (research: what such servers got wrong)."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi.routing import APIRoute
from nicegui import app as pages
from serving import SECRET, make, tune_run, until
from starlette.routing import BaseRoute

from tuneloop.core.errors import RecipeError
from tuneloop.serve import auth, server
from tuneloop.serve.app import build
from tuneloop.serve.config import ServeConfig
from tuneloop.store import store
from tuneloop.web.site import Site

ROLES = {
    ("POST", "/v1/chat/completions"): "chat",
    ("POST", "/v1/completions"): "chat",
    ("POST", "/v1/embeddings"): "chat",
    ("GET", "/v1/models"): "chat",
    ("GET", "/v1/models/{model:path}"): "chat",
    ("GET", "/openapi.json"): "chat",
    ("POST", "/v1/feedback"): "rate",
    ("GET", "/metrics"): "watch",
    ("GET", "/admin/adapters"): "admin",
    ("POST", "/admin/adapters"): "admin",
    ("DELETE", "/admin/adapters/{name:path}"): "admin",
    ("GET", "/admin/keys"): "admin",
    ("POST", "/admin/keys"): "admin",
    ("DELETE", "/admin/keys/{id}"): "admin",
}
"""What each route demands. A new route must be added here, or the walk fails."""


class Nobody:
    name = "nobody"


def leaves(routes: list[BaseRoute]) -> list[BaseRoute]:
    """All routes, those of included routers too."""
    found: list[BaseRoute] = []
    for route in routes:
        inner = getattr(route, "routes", None) or getattr(getattr(route, "original_router", None), "routes", None)
        found += leaves(list(inner)) if inner else [route]
    return found


def demanded(dependant: Any) -> list[str]:
    here = [role for role in [getattr(dependant.call, "role", None)] if role]
    return here + [role for inner in dependant.dependencies for role in demanded(inner)]


def test_every_route_demands_its_role_and_only_two_are_open(tmp_path: Path) -> None:
    service, _ = make(tmp_path, embedder=Nobody())  # type: ignore[arg-type]
    app = build(service)
    service.close()
    seen: dict[tuple[str, str], str | None] = {}
    for route in leaves(app.routes):
        assert isinstance(route, APIRoute), f"{route} is no route of ours: nothing says what it demands"
        for method in route.methods:
            seen[method, route.path] = next(iter(demanded(route.dependant)), None)
    open_to_all = {place for place, role in seen.items() if role is None}
    assert open_to_all == set(auth.OPEN)
    assert {place: role for place, role in seen.items() if role} == ROLES


def test_pages_have_these_places_and_only_the_form_is_open(tmp_path: Path) -> None:
    """The door asks for a session wherever a site's place is not open by name; what is no place is the API's."""
    service, _ = make(tmp_path)
    site = Site(service)
    service.close()
    assert site.open == {("GET", "/login"), ("POST", "/login"), ("POST", "/logout")}
    places = {route.path for route in leaves(pages.routes)}
    socket, assets = "/_nicegui_ws", "/_nicegui/"
    assert {place for place in places if not place.startswith((socket, assets))} <= {"/", "/favicon.ico"}
    api = [path for _, path in ROLES] + [path for _, path in auth.OPEN]
    assert [path for path in api if site.place("http", path) or site.place("websocket", path)] == []
    assert [path for path in ("/", "/login", assets + "x", "/favicon.ico") if site.place("websocket", path)] == []
    assert site.place("http", "/_nicegui_ws/socket.io/") is None


def test_without_a_key_nothing_is_answered_whatever_the_path(opened: Any) -> None:
    one = opened(open_to_all=False)
    paths = (
        "/", "/docs", "/redoc", "/openapi.json", "/metrics", "/v1/models", "/static/x.js", "/admin/keys", "/health/",
        "//health", "/health/../metrics", "/Health", "/%68ealth/x", "/ready/x", "/v1/chat/completions", "/nothing",
    )  # fmt: skip
    for method in ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE"):
        for path in paths:
            assert one.client.request(method, path).status_code == 401, (method, path)
    assert one.client.post("/health").status_code == 401


def test_open_routes_tell_nothing_but_their_state(opened: Any) -> None:
    one = opened(open_to_all=False)
    assert one.client.get("/health").json() == {"status": "ok"}
    assert one.client.get("/ready").json() == {"status": "ok"}


def test_a_role_opens_its_routes_alone(opened: Any) -> None:
    one = opened(open_to_all=False)
    chat, rate, watch, admin = one.key("chat"), one.key("rate"), one.key("watch"), one.key("admin")
    gets = ["/v1/models", "/metrics", "/admin/keys"]
    assert [one.client.get(path, headers=chat).status_code for path in gets] == [200, 403, 403]
    assert [one.client.get(path, headers=rate).status_code for path in gets] == [403, 403, 403]
    assert [one.client.get(path, headers=watch).status_code for path in gets] == [403, 200, 403]
    assert [one.client.get(path, headers=admin).status_code for path in gets] == [403, 403, 200]
    vote = {"answer": "x", "thumb": 1}
    assert [one.client.post("/v1/feedback", json=vote, headers=h).status_code for h in (chat, rate)] == [403, 400]


def test_without_any_key_this_machine_may_chat_but_not_administer(opened: Any) -> None:
    one = opened()
    assert one.ask().status_code == 200
    assert one.client.get("/admin/keys").status_code == one.client.get("/metrics").status_code == 403
    wrong = one.client.get("/v1/models", headers={"Authorization": "Bearer tl-revoked"})
    assert wrong.status_code == 401  # a wrong key of ours is never as good as none
    placeholder = one.client.get("/v1/models", headers={"Authorization": "Bearer none-yet"})
    assert placeholder.status_code == 200  # OpenAI's clients cannot leave the key out


@pytest.mark.parametrize("header", ["", "Bearer", "Bearer ", "Basic YTpi", "tl-x", "Bearer tl-00000000-" + "A" * 43])
def test_malformed_and_unknown_keys_are_refused(opened: Any, header: str) -> None:
    one = opened(open_to_all=False)
    answer = one.client.get("/v1/models", headers={"Authorization": header})
    assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")


def test_a_revoked_key_is_good_for_nothing_at_once(opened: Any) -> None:
    one = opened(open_to_all=False)
    admin, chat = one.key("admin"), one.key("chat")
    assert one.client.get("/v1/models", headers=chat).status_code == 200
    id = next(k["id"] for k in one.client.get("/admin/keys", headers=admin).json()["data"] if k["roles"] == ["chat"])
    assert one.client.delete(f"/admin/keys/{id}", headers=admin).status_code == 200
    assert one.client.get("/v1/models", headers=chat).status_code == 401
    assert one.client.delete("/admin/keys/none", headers=admin).status_code == 404


def test_the_first_key_made_closes_the_open_door(opened: Any, tmp_path: Path) -> None:
    one = opened()
    made = one.client.post("/admin/keys", json={"name": "ann", "roles": ["chat"]}, headers=one.key("admin"))
    assert one.ask().status_code == 401
    assert one.ask(), made.json()["key"]
    assert made.json()["key"].encode() not in (tmp_path / "store.db").read_bytes()


@pytest.mark.parametrize(
    "host", ["evil.example", "localhost.evil.example", "evil.example:80", "", "a@localhost", "[::1"]
)
def test_foreign_host_names_are_refused_against_dns_rebinding(toy: Any, host: str) -> None:
    assert toy.client.get("/health", headers={"Host": host}).status_code == 421


def test_the_first_key_closes_a_running_service_to_all_without_one(
    served: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`tuneloop keys create` said that it does; the service went on answering everybody until it was started anew."""
    monkeypatch.setattr(auth, "REMEMBERED", 0.05)
    one = served()
    with httpx.Client(base_url=one.url) as client, store.open(f"sqlite:///{tmp_path}/store.db", SECRET) as other:
        assert client.get("/v1/models").status_code == 200
        key = other.keys.create("by the command line", ["chat"])
        until(lambda: client.get("/v1/models").status_code == 401)
        assert client.get("/v1/models", headers={"Authorization": "Bearer any word"}).status_code == 401
        good = {"Authorization": f"Bearer {key}"}
        assert client.get("/v1/models", headers=good).status_code == 200
        other.keys.revoke(key[3:11])
        until(lambda: client.get("/v1/models", headers=good).status_code == 401)
        assert client.get("/v1/models").status_code == 401, "it does not open again by itself"


@pytest.mark.parametrize("host", ["localhost:1", "127.0.0.1", "[::1]:8000", "Chat.Example.org", "10.0.0.7:8000"])
def test_own_names_and_addresses_are_taken(toy: Any, host: str) -> None:
    assert toy.client.get("/health", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://localhost.evil.example", "http://[", ""])
def test_requests_from_other_sites_pages_are_refused(toy: Any, origin: str) -> None:
    body = {"model": "toy", "messages": [{"role": "user", "content": "x"}]}
    answer = toy.client.post("/v1/chat/completions", json=body, headers={"Origin": origin})
    assert answer.status_code == 403
    own = toy.client.post("/v1/chat/completions", json=body, headers={"Origin": "http://localhost"})
    assert own.status_code == 200


def test_there_is_no_cors_and_a_strict_policy_on_every_answer(toy: Any) -> None:
    preflight = {"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"}
    answers = [
        toy.ask(), toy.ask(stream=True), toy.ask(tools=1), toy.client.get("/health"), toy.client.get("/nothing"),
        toy.client.get("/health", headers={"Host": "x"}), toy.client.options("/v1/models", headers=preflight),
    ]  # fmt: skip
    for answer in answers:
        assert not [name for name in answer.headers if name.startswith("access-control-")]
        assert answer.headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cache-control"] == "no-store"
        assert "server" not in answer.headers


def test_a_form_post_that_needs_no_preflight_is_not_taken(toy: Any) -> None:
    text = '{"model": "toy", "messages": [{"role": "user", "content": "x"}]}'
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"):
        answer = toy.client.post("/v1/chat/completions", content=text, headers={"Content-Type": kind})
        assert answer.status_code == 415
    assert toy.client.post("/v1/chat/completions", content=text).status_code == 415


@pytest.mark.parametrize("kind", ["image_url", "input_audio", "file", "image"])
def test_no_urls_or_files_are_taken_from_clients(toy: Any, kind: str) -> None:
    part = {"type": kind, kind: {"url": "http://169.254.169.254/"}}
    answer = toy.client.post(
        "/v1/chat/completions", json={"model": "toy", "messages": [{"role": "user", "content": [part]}]}
    )
    assert answer.status_code == 400
    assert answer.json()["error"]["param"].startswith("messages[0].content[0]")
    assert toy.engine.asked == []


@pytest.mark.parametrize("ref", ["http://evil.example/s.json", "file:///etc/passwd", "other.json#/a", "//x"])
def test_schemas_refer_to_nothing_outside_themselves(toy: Any, ref: str) -> None:
    schema = {"anyOf": [[{"type": "string"}], {"properties": {"a": {"$ref": ref}}}]}
    formats = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    assert toy.ask(response_format=formats).json()["error"]["param"] == "response_format.json_schema.schema"
    inner = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"$ref": "#/$defs/a", "$defs": {"a": {}}}}}
    assert toy.ask(response_format=inner).status_code == 200


@pytest.mark.parametrize(
    "run",
    ["../secret", "..", ".", "/etc", "a/b", "a\\b", "%2e%2e", "", "x\x00y", "link", "outside", "data", "unfinished"],
)
def test_runs_are_named_by_id_and_never_left_by_path_or_link(opened: Any, tmp_path: Path, run: str) -> None:
    one = opened()
    admin = one.key("admin")
    runs = tmp_path / "runs"
    tune_run(tmp_path, "secret")
    (runs / "link").symlink_to(tmp_path / "secret")
    tune_run(runs, "outside")
    adapter = runs / "outside" / "out" / "adapter"
    adapter.rename(tmp_path / "moved")
    adapter.symlink_to(tmp_path / "moved")
    tune_run(runs, "data", stage="prepare")
    tune_run(runs, "unfinished")
    (runs / "unfinished" / "DONE").unlink()
    answer = one.client.post("/admin/adapters", json={"name": "x", "run": run}, headers=admin)
    assert answer.status_code == 400
    if run:
        assert "no finished tune run" in answer.json()["error"]["message"]
    assert str(tmp_path) not in answer.text
    assert [model["id"] for model in one.client.get("/v1/models", headers=one.key("chat")).json()["data"]] == ["toy"]


def test_admin_actions_stand_in_the_audit_log(opened: Any, tmp_path: Path) -> None:
    one = opened()
    admin = one.key("admin")
    tune_run(tmp_path / "runs", "r1")
    assert one.client.post("/admin/adapters", json={"name": "a", "run": "r1"}, headers=admin).status_code == 200
    assert one.client.delete("/admin/adapters/a", headers=admin).status_code == 200
    made = one.client.post("/admin/keys", json={"name": "ann", "roles": ["chat"]}, headers=admin).json()
    one.client.delete(f"/admin/keys/{made['id']}", headers=admin)
    entries = list(one.service.store.audit_log())
    actor = entries[0].detail["id"]
    assert [entry.action for entry in entries[1:]] == ["adapter.put", "adapter.remove", "create key", "revoke key"]
    assert all(actor in entry.actor for entry in entries[1:])
    assert one.service.store.verify_audit() is None
    assert made["key"] not in str(entries)


def test_neither_keys_nor_prompts_nor_answers_are_logged(
    opened: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.DEBUG)
    one = opened(lambda ask: "the answer is PRIVATE")
    key = one.key("chat")
    secret = key["Authorization"].split()[1]
    body: Any = {"model": "toy", "messages": [{"role": "user", "content": "my SECRET question"}]}
    path = "/v1/chat/completions"
    assert one.client.post(f"{path}?q=SECRET", json=body, headers=key).status_code == 200
    assert one.client.post(path, json={**body, "stream": True}, headers=key).status_code == 200
    assert one.client.post(path, json={**body, "SECRET": "SECRET", "temperature": "SECRET"}, headers=key).is_error
    assert one.client.get("/v1/SECRET", headers=key).status_code == 404
    one.client.get("/v1/models", headers={"Authorization": f"Bearer {secret}x"})

    message = body["messages"][0]["content"]

    def fault(*_: Any) -> Any:
        raise ValueError(message)

    monkeypatch.setattr(one.engine, "submit", fault)
    assert one.client.post(path, json=body, headers=key).status_code == 500
    told = [record.getMessage() for record in caplog.records if not record.name.startswith("http")]  # the client's own
    own = "\n".join(told)
    assert "POST /v1/chat/completions 200" in own and "ValueError in POST" in own
    for word in ("SECRET", "PRIVATE", secret, secret[12:]):
        assert word not in own


def test_a_fault_tells_the_client_nothing_about_the_machine(opened: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    one = opened()

    def fault(*_: Any) -> Any:
        raise OSError("/secret/path")

    monkeypatch.setattr(one.engine, "submit", fault)
    answer = one.ask()
    assert (answer.status_code, answer.json()["error"]["type"]) == (500, "server_error")
    assert "secret" not in answer.text
    assert one.service.under_way == set()


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.7", "example.org"])
def test_other_interfaces_need_a_key_and_the_refusal_says_how_to_add_tls(host: str) -> None:
    with pytest.raises(RecipeError, match=r"keys create[\s\S]*serve.tls.certificate[\s\S]*proxy with TLS"):
        server.check(ServeConfig(host=host), has_key=False)
    server.check(ServeConfig(host=host), has_key=True)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_the_loopback_needs_none(host: str) -> None:
    server.check(ServeConfig(host=host), has_key=False)


def test_half_a_certificate_is_refused() -> None:
    with pytest.raises(RecipeError, match="go together"):
        server.check(ServeConfig.model_validate({"tls": {"certificate": "x.pem"}}), has_key=True)


def test_key_files_must_be_private_and_long_enough(tmp_path: Path, opened: Any) -> None:
    path = tmp_path / "keys"
    path.write_text("k" * 40 + "\n")
    path.chmod(0o644)
    with pytest.raises(RecipeError, match="chmod 600"):
        auth._keys(path)
    path.chmod(0o600)
    one = opened(open_to_all=False, key_file=path)
    good = {"Authorization": "Bearer " + "k" * 40}
    assert one.client.get("/v1/models", headers=good).status_code == 200
    assert one.client.get("/admin/keys", headers=good).status_code == 403
    path.write_text("short\n")
    with pytest.raises(RecipeError, match="under 32"):
        auth._keys(path)
    path.write_text("\n")
    with pytest.raises(RecipeError, match="no key"):
        auth._keys(path)


def test_websockets_are_refused(opened: Any) -> None:
    from starlette.websockets import WebSocketDisconnect

    one = opened()
    with pytest.raises(WebSocketDisconnect), one.client.websocket_connect("/v1/models"):
        pass


def test_forwarded_headers_change_nothing(opened: Any) -> None:
    one = opened(open_to_all=False)
    headers = {"X-Forwarded-For": "127.0.0.1", "X-Forwarded-Host": "localhost", "X-Original-URL": "/health"}
    assert one.client.get("/v1/models", headers=headers).status_code == 401
    assert one.client.get("/health", headers={"X-Forwarded-Host": "evil.example"}).status_code == 200
