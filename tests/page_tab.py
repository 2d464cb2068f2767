"""An open page without a browser: reads its elements, says what a browser would say over its socket. For tests."""

from __future__ import annotations

import html
import json
import re
import time
from typing import Any
from urllib.parse import urlencode

import httpx
from serving import SECONDS
from websockets.sync.client import ClientConnection, connect

SOCKET = "/_nicegui_ws/socket.io/"


def socket(url: str, query: dict[str, Any] | None = None, **headers: str) -> Any:
    """A WebSocket of the pages, for a `with`; raises InvalidStatus when the door refuses it."""
    query = {"EIO": 4, "transport": "websocket", **(query or {})}
    address = f"ws{url.removeprefix('http')}{SOCKET}?{urlencode(query)}"
    return connect(address, additional_headers=headers, max_size=None, proxy=None)


class Tab:
    """One page that is open, with its own session unless `client` has one."""

    def __init__(self, url: str, language: str = "en", client: httpx.Client | None = None) -> None:
        self.client = client or httpx.Client(base_url=url)
        page = self.client.get("/", headers={"Accept-Language": language})
        assert page.status_code == 200, page.status_code
        self.page = page.text
        found = re.search(r"parseElements\(String\.raw`(.*?)`\)", page.text, re.DOTALL)
        self._id = re.findall(r"'client_id': '([^']+)'", page.text)[0]
        assert found is not None
        self.elements: dict[str, Any] = json.loads(html.unescape(found[1]))
        self.told: list[Any] = []
        query = {"client_id": self._id, "next_message_id": 0, "implicit_handshake": "true", "document_id": "d"}
        cookie = "; ".join(f"{name}={value}" for name, value in self.client.cookies.items())
        self._connection = socket(url, query | {"tab_id": self._id}, Origin=url, Cookie=cookie)

    def __enter__(self) -> Tab:
        self.socket: ClientConnection = self._connection.__enter__()
        self.socket.recv(SECONDS)
        self.socket.send("40")
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.__exit__(None, None, None)

    def say(self, element: str, kind: str, value: Any) -> None:
        """An event of an element."""
        (listener,) = [one for one in self.elements[element]["events"] if one["type"] == kind]
        body = {"id": int(element), "client_id": self._id, "listener_id": listener["listener_id"]}
        self.socket.send("42" + json.dumps(["event", {**body, "args": [json.dumps(value)]}]))

    def find(self, words: str) -> str | None:
        """The last element of this text, label or name for those who do not see it."""
        for id, element in reversed(self.elements.items()):
            props = element.get("props", {})
            if element["tag"] != "q-tooltip" and words in (
                element.get("text"),
                props.get("aria-label"),
                props.get("label"),
            ):
                return id
        return None

    def shown(self) -> str:
        """All texts and answers on the page."""
        parts = [(one.get("text") or "", one.get("props", {}).get("innerHTML") or "") for one in self.elements.values()]
        return "\n".join(part for pair in parts for part in pair if part)

    def read(self) -> None:
        """Takes what the server says next."""
        try:
            message = str(self.socket.recv(0.2))
        except TimeoutError:
            return
        if message == "2":
            self.socket.send("3")
        elif message.startswith("42"):
            kind, body = json.loads(message[2:])
            self.told.append((kind, body))
            if kind == "update":
                for id, element in body.items():
                    if element is None:
                        self.elements.pop(id, None)
                    elif id != "_id":
                        self.elements.pop(id, None)
                        self.elements[id] = element

    def see(self, words: str) -> str:
        """Waits until an element is there; its id."""
        end = time.monotonic() + SECONDS
        while (found := self.find(words)) is None:
            assert time.monotonic() < end, f"no '{words}' in: {self.shown()}"
            self.read()
        return found

    def read_until(self, words: str) -> None:
        """Waits until these words stand in a text or an answer."""
        end = time.monotonic() + SECONDS
        while words not in self.shown():
            assert time.monotonic() < end, f"no '{words}' in: {self.shown()}"
            self.read()

    def click(self, words: str) -> None:
        """Clicks on what has this name."""
        self.say(self.see(words), "click", None)

    def type(self, words: str, text: str) -> None:
        """Writes into a field."""
        self.say(self.see(words), "update:value", text)

    def ask(self, text: str) -> None:
        """Asks the model."""
        self.type("Ask something", text)
        self.click("Send")
