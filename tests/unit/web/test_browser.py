"""The page in a real browser, headless: what runs and loads, keys, streaming, themes, a narrow screen."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import Any

import pytest
from serving import until

api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (the extra dev has it)")
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
HOSTILE = """**Refunds** within 30 days. <script>window.pwned = 1</script><img src=x onerror="window.pwned = 1">
<svg onload="window.pwned = 1"> [bad](javascript:window.pwned=1) ![spy](https://evil.example/spy.png) [good](https://a.example)"""
SMUGGLED = """element => {
  element.innerHTML = '<img src="/favicon.ico?" onload="window.pwned = 1"><img src="https://evil.example/x.png">';
  const script = document.createElement("script");
  script.textContent = "window.pwned = 1";
  element.append(script);
}"""
WAIT = 60_000  # ms; a busy machine is no failure


@pytest.fixture(scope="module")  # playwright keeps a loop running in this thread, as long as it lives
def _browser() -> Iterator[Any]:
    with api.sync_playwright() as started:
        found = next(filter(None, map(shutil.which, NAMES)), None)
        try:
            browser = started.chromium.launch(executable_path=found, args=["--no-sandbox"])
        except api.Error as error:
            pytest.skip(f"no browser: no {', '.join(NAMES)} on PATH, and none of playwright's own ({error!s:.60})")
        yield browser
        browser.close()


class Seen:
    """A page with all that it loaded and complained of."""

    def __init__(self, browser: Any, url: str, **options: Any) -> None:
        self.context = browser.new_context(**{"locale": "en-US", "color_scheme": "light", **options})
        self.page = self.context.new_page()
        self.page.set_default_timeout(WAIT)
        self.loaded: list[str] = []
        self.wrong: list[str] = []
        self.page.on("request", lambda request: self.loaded.append(request.url))
        self.page.on("pageerror", lambda error: self.wrong.append(str(error)))
        self.page.on("console", lambda said: self.wrong.append(said.text) if said.type == "error" else None)
        self.page.on("dialog", lambda dialog: self.wrong.append(dialog.message))
        self.page.goto(url)

    def field(self) -> Any:
        return self.page.get_by_label("Ask something")

    def ask(self, text: str) -> None:
        self.field().fill(text)
        self.field().press("Enter")

    def focused(self) -> str:
        return self.page.evaluate("(e => e.getAttribute('aria-label') || e.innerText)(document.activeElement)")


@pytest.fixture
def seen(_browser: Any, living: Any) -> Iterator[Any]:
    opened: list[Seen] = []

    def make(**options: Any) -> Seen:
        opened.append(Seen(_browser, living.url, **options))
        return opened[-1]

    yield make
    for one in opened:
        one.context.close()


def test_nothing_that_a_model_says_runs_or_loads_and_all_comes_from_here(living: Any, seen: Any) -> None:
    living.answer = lambda ask: HOSTILE
    one = seen()
    one.ask("refunds?")
    one.page.get_by_label("Good answer").wait_for()
    assert one.page.locator(".tl-text strong").inner_text() == "Refunds"
    links = one.page.locator(".tl-text a").evaluate_all("all => all.map(one => one.href)")
    assert links == [
        "https://evil.example/spy.png",
        "https://a.example/",
    ]  # a picture is a link that nobody has to follow
    assert one.page.locator(".tl-text img, .tl-text script, .tl-text svg").count() == 0
    # even markup that got past both filters would not run: the policy stops it, and only it complains
    one.page.locator(".tl-text").evaluate(SMUGGLED)
    until(lambda: one.page.wait_for_timeout(50) or len(one.wrong) >= 3)
    assert one.page.evaluate("window.pwned") is None
    assert all("Content Security Policy" in text for text in one.wrong), one.wrong
    outside = [url for url in one.loaded if not url.startswith((living.url, "data:"))]
    assert outside in ([], ["https://evil.example/x.png"])  # asked for by the test, and stopped
    assert {cookie["name"]: cookie["httpOnly"] for cookie in one.context.cookies()}["tuneloop"]


def test_it_is_used_by_keys_alone(living: Any, seen: Any) -> None:
    living.answer = lambda ask: "one two three four"
    living.engine.pause(after=2)
    one = seen()
    one.field().wait_for()
    until(lambda: one.focused() == "Ask something")  # at once where people write
    one.page.keyboard.type("first line")
    one.page.keyboard.press("Shift+Enter")
    one.page.keyboard.type("second")
    one.page.keyboard.press("Enter")
    one.page.get_by_text("one two").wait_for()
    assert living.engine.asked[-1].request.messages[-1].content == "first line\nsecond"
    assert one.page.get_by_label("Stop").is_visible()
    one.page.keyboard.press("Escape")
    one.page.get_by_text("stopped", exact=True).wait_for()
    living.engine.resume()
    outlined: dict[str, str] = {}
    for _ in range(14):
        one.page.keyboard.press("Shift+Tab")
        outlined[one.focused()] = one.page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    for name in ("New chat", "Settings", "Light or dark", "中文", "Good answer", "Bad answer", "Copy"):
        assert outlined.get(name) == "solid", outlined
    good = one.page.get_by_label("Good answer")
    good.focus()
    one.page.keyboard.press("Enter")
    until(lambda: one.page.wait_for_timeout(20) or good.get_attribute("aria-pressed") == "true")
    assert one.wrong == []


def test_a_correction_is_written_and_kept(living: Any, seen: Any) -> None:
    living.answer = lambda ask: "wrong in the browser"
    one = seen()
    one.ask("right?")
    one.page.get_by_label("Write a better answer").click()
    one.page.get_by_label("The answer as it should be").fill("right 正确")
    one.page.get_by_label("What was wrong? (optional)").fill("all of it")
    one.page.get_by_role("button", name="Save").click()
    one.page.get_by_text("Thank you").wait_for()
    answer, votes = living.stored("wrong in the browser")
    assert [(vote.thumb, vote.corrected, vote.comment) for vote in votes] == [(-1, "right 正确", "all of it")]
    assert votes[0].user == answer.user


def test_a_narrow_dark_chinese_screen(living: Any, seen: Any) -> None:
    living.answer = lambda ask: "| a | b |\n|---|---|\n| " + "很长的一句话" * 20 + " | " + "x" * 200 + " |"
    one = seen(locale="zh-CN", color_scheme="dark", viewport={"width": 360, "height": 640})
    field = one.page.get_by_label("请输入问题")
    field.fill("窄屏可以吗？" * 20)
    field.press("Enter")
    one.page.get_by_label("回答得好").wait_for()
    assert one.page.evaluate("document.documentElement.scrollWidth") <= 360
    assert one.page.evaluate("document.documentElement.lang") == "zh"
    dark = one.page.evaluate("getComputedStyle(document.body).backgroundColor")
    one.page.get_by_label("浅色或深色").click()
    light = one.page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (dark, light) == ("rgb(20, 24, 29)", "rgb(255, 255, 255)")
    one.page.get_by_role("button", name="English").click()
    one.page.get_by_label("Ask something").wait_for()
    one.page.reload()  # both choices are remembered
    one.page.get_by_label("Ask something").wait_for()
    assert one.page.evaluate("getComputedStyle(document.body).backgroundColor") == light


def test_people_log_in_and_out(living: Any, seen: Any) -> None:
    living.service.doorkeeper.open_to_all = False
    one = seen()
    one.page.get_by_label("Your key").fill("tl-wrong")
    one.page.keyboard.press("Enter")
    one.page.get_by_text("This key may not chat here").wait_for()
    one.page.get_by_label("Your key").fill(living.service.store.keys.create("ann", ["chat", "rate"]))
    one.page.get_by_role("button", name="Enter").click()
    one.ask("am I in?")
    one.page.get_by_text("scripted says: am I in?").wait_for()
    one.page.get_by_label("Log out").click()
    one.page.get_by_label("Your key").wait_for()
    assert all("401" in text for text in one.wrong), one.wrong
