"""What stands between a browser and the pages: sessions, the Content-Security-Policy, the WebSocket's checks."""

from __future__ import annotations

import re
import time
from typing import Any

import pytest
from page_tab import SOCKET, socket
from serving import make, until
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tuneloop.serve import auth, sessions
from tuneloop.serve.front import OPEN
from tuneloop.web.site import Site


def test_each_script_of_the_page_carries_the_policys_nonce_and_nothing_else_may_run(living: Any) -> None:
    answer = living.client().get("/")
    policy = answer.headers["content-security-policy"]
    (nonce,) = re.findall(r"'nonce-([\w-]{20,})'", policy)
    scripts = re.findall(r"<script[^>]*>", answer.text)
    assert len(scripts) >= 5 and all(f'nonce="{nonce}"' in script for script in scripts)
    assert "script-src 'self'" in policy and "default-src 'none'" in policy
    assert "script-src 'self' 'unsafe-inline'" not in policy and "http" not in policy and "*" not in policy
    assert not re.search(r"\son\w+=", answer.text)
    assert nonce not in living.client().get("/").headers["content-security-policy"]
    for name in ("x-frame-options", "x-content-type-options", "referrer-policy"):
        assert name in answer.headers


def test_nothing_comes_from_elsewhere(living: Any) -> None:
    page = living.client().get("/").text
    for address in re.findall(r"""(?:src|href|url)\s*[=(]\s*["']([^"']+)""", page):
        assert address.startswith("/_nicegui/"), address
    css = living.client().get("/").text
    assert "tailwind" not in css.split("</head>")[1].split("socket.io.min.js")[0]


def test_the_page_speaks_both_languages(living: Any) -> None:
    client = living.client()
    english = client.get("/", headers={"Accept-Language": "en"}).text
    chinese = client.get("/", headers={"Accept-Language": "zh-CN"}).text
    assert "Ask something" in english and "请输入问题" in chinese
    assert "Ask something" in client.get("/", headers={"Accept-Language": "zh", "Cookie": "tuneloop-language=en"}).text


def test_without_a_key_a_visitor_only_sees_the_form(living: Any) -> None:
    living.service.doorkeeper.open_to_all = False
    client = living.client()
    sent = client.get("/")
    assert (sent.status_code, sent.headers["location"]) == (303, "/login")
    form = client.get("/login", headers={"Accept-Language": "zh"})
    assert (form.status_code, "此服务器需要密钥" in form.text, "<script" in form.text) == (200, True, False)
    assert "script-src" not in form.headers["content-security-policy"]
    assert "default-src 'none'" in form.headers["content-security-policy"]
    for path in (
        "/_nicegui/3.18.0/static/nicegui.js",
        "/favicon.ico",
        "/_nicegui/",
        "/logout",
        SOCKET,
        "/login/",
        "/x",
    ):
        assert client.get(path).status_code == 401, path
    for method in ("HEAD", "PUT", "DELETE", "OPTIONS", "PATCH"):
        assert client.request(method, "/login").status_code == 401
        assert client.request(method, "/").status_code == 401
    assert ("GET", "/login") in Site.open and not Site.open & OPEN


@pytest.mark.parametrize("roles", [["rate"], ["admin"], ["rate", "train", "approve"]])
def test_a_key_without_the_role_chat_does_not_log_in(living: Any, roles: list[Any]) -> None:
    living.service.doorkeeper.open_to_all = False
    client, key = living.client(), living.service.store.keys.create("x", roles)
    for wrong in (key, "", "tl-x", "x" * 100_000, "\0"):
        answer = client.post("/login", data={"key": wrong}, headers={"Origin": living.url, "Accept-Language": "en"})
        assert (answer.status_code, "set-cookie" in answer.headers) == (401, False)
        assert "This key may not chat here" in answer.text and key not in answer.text


def test_a_long_form_is_not_taken_apart(living: Any) -> None:
    """Everybody may send one, and 250,000 fields took 0.3 s in which nobody else was served."""
    living.service.doorkeeper.open_to_all = False
    key = living.service.store.keys.create("x", ["chat"])
    form = "a=b&" * 2_000 + f"key={key}"
    answer = living.client().post("/login", content=form, headers={"Origin": living.url})
    assert (answer.status_code, "set-cookie" in answer.headers) == (401, False)


def test_a_session_opens_the_pages_and_nothing_else(living: Any) -> None:
    living.service.doorkeeper.open_to_all = False
    client = living.login("chat", "admin")
    assert client.get("/").status_code == 200
    cookie = client.cookies["tuneloop"]
    for path in ("/v1/models", "/admin/keys", "/metrics", "/openapi.json"):
        assert client.get(path).status_code == 401, path
    key = {"Authorization": f"Bearer {living.service.store.keys.create('bob', ['chat'])}"}
    assert living.client().get("/", headers=key).status_code == 303  # nor does a key open the page
    assert client.get("/_nicegui/nothing").status_code == 404
    left = client.post("/logout", headers={"Origin": living.url})
    assert left.status_code == 303 and "Max-Age=0" in left.headers["set-cookie"]
    assert client.get("/").status_code == 303
    client.cookies.set("tuneloop", cookie[:-1] + ("0" if cookie[-1] != "0" else "1"))
    assert client.get("/").status_code == 303


def test_the_cookie_is_out_of_reach_of_scripts_and_other_sites(living: Any) -> None:
    told = living.client().get("/").headers["set-cookie"]
    for part in ("HttpOnly", "SameSite=Strict", "Path=/"):
        assert part in told
    assert "Secure" not in told
    client = living.client()
    client.get("/")
    assert "set-cookie" not in client.get("/").headers  # the session goes on
    behind_tls = {"Origin": "https://chat.example.org", "Host": "chat.example.org"}
    key = living.service.store.keys.create("ann", ["chat"])
    assert "; Secure" in living.client().post("/login", data={"key": key}, headers=behind_tls).headers["set-cookie"]


def test_the_first_key_asks_visitors_for_one(living: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auth, "REMEMBERED", 0.05)
    old = living.client()
    assert old.get("/").status_code == 200
    living.service.store.keys.create("ann", ["chat"])
    time.sleep(0.1)
    for client in (living.client(), old):
        sent = client.get("/")
        assert (sent.status_code, sent.headers["location"]) == (303, "/login")


def test_sessions_end_with_their_key_and_by_time(living: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    service = living.service
    service.doorkeeper.open_to_all = False
    client = living.login("chat")
    assert client.get("/").status_code == 200
    id = client.cookies["tuneloop"].split(".")[0]
    service.store.keys.revoke(id)
    service.doorkeeper.forget()
    assert client.get("/").status_code == 303
    monkeypatch.setattr(sessions, "LASTS", -1)
    assert living.login("chat").get("/").status_code == 303


def test_a_session_of_nobody_ends_with_the_first_key(living: Any) -> None:
    client = living.client()
    assert client.get("/").status_code == 200
    living.service.doorkeeper.open_to_all = False
    assert client.get("/").status_code == 303


@pytest.mark.parametrize(
    "cookie", ["tuneloop=", "tuneloop=a.b.c", "tuneloop=..", "=;;", "tuneloop=\xff", "tuneloop=" + "x" * 9000]
)
def test_broken_cookies_are_no_session(living: Any, cookie: str) -> None:
    living.service.doorkeeper.open_to_all = False
    assert living.client().get("/", headers={"Cookie": cookie.encode("latin-1")}).status_code == 303  # type: ignore[dict-item]


@pytest.mark.parametrize("path", ["/login", "/logout"])
def test_other_sites_pages_log_nobody_in_or_out(living: Any, path: str) -> None:
    for origin in ("https://evil.example", "null"):
        answer = living.client().post(path, data={"key": "x"}, headers={"Origin": origin})
        assert (answer.status_code, "set-cookie" in answer.headers) == (403, False)


def refused(url: str, **headers: str) -> int:
    with pytest.raises(InvalidStatus) as caught, socket(url, **headers):
        pass
    return caught.value.response.status_code


def test_the_websocket_asks_for_host_origin_and_session(living: Any) -> None:
    client = living.client()
    client.get("/")
    cookie = f"tuneloop={client.cookies['tuneloop']}"
    good = {"Origin": living.url, "Cookie": cookie}
    with socket(living.url, **good) as one:
        assert str(one.recv()).startswith("0{")
    assert refused(living.url, Cookie=cookie) == 403
    assert refused(living.url, Cookie=cookie, Origin="https://evil.example") == 403
    assert refused(living.url, Origin=living.url) == 403
    assert refused(living.url, Origin=living.url, Cookie="tuneloop=x") == 403
    living.service.doorkeeper.open_to_all = False
    assert refused(living.url, **good) == 403


def test_no_other_path_speaks_websocket_and_the_socket_does_not_poll(living: Any) -> None:
    client = living.client()
    client.get("/")
    headers = {"Origin": living.url, "Cookie": f"tuneloop={client.cookies['tuneloop']}"}
    for path in ("/", "/v1/models", "/_nicegui_ws/", "/_nicegui_ws/other/"):
        upgrade = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13",
                   "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ=="}  # fmt: skip
        assert living.client().get(path, headers=headers | upgrade).status_code == 403, path
    evil = {"Host": "evil.example", "Origin": "http://evil.example"}
    assert living.client().get(SOCKET, headers=headers | upgrade | evil).status_code == 403
    assert client.get(SOCKET, params={"EIO": "4", "transport": "polling"}).status_code == 404


def test_a_message_beyond_the_limit_closes_the_socket(living: Any) -> None:
    client = living.client()
    client.get("/")
    with socket(living.url, Origin=living.url, Cookie=f"tuneloop={client.cookies['tuneloop']}") as one:
        one.recv()
        one.send("x" * (living.service.config.limits.body_bytes + 1))
        with pytest.raises(ConnectionClosed):
            while True:
                one.recv(10)
    until(lambda: living.client().get("/health").status_code == 200)


def test_pages_count_as_requests(living: Any) -> None:
    rate = living.service.requests
    rate._buckets["local"] = (-100.0, rate._clock())
    assert living.client().get("/").status_code == 429
    rate._buckets.clear()


def test_forwarded_prefixes_do_not_get_into_the_page(living: Any) -> None:
    assert "evil" not in living.client().get("/", headers={"X-Forwarded-Prefix": "//evil.example"}).text


def test_without_the_page_nothing_of_it_is_there(tmp_path: Any) -> None:
    from starlette.testclient import TestClient

    from tuneloop.serve.app import build

    service, _ = make(tmp_path)
    with TestClient(build(service), base_url="http://localhost") as client:
        for path in ("/", "/login", "/_nicegui/3.18.0/static/nicegui.js", "/favicon.ico"):
            assert client.get(path).status_code == 404
