"""The page at `/`: talk to the model, see the answer come, say what was good or bad about it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, Literal

from nicegui import ui
from starlette.requests import Request

from tuneloop.core.conversation import Message
from tuneloop.web import frame, rating
from tuneloop.web.prose import to_html
from tuneloop.web.talk import Denied, Said, Talk, Verdict, Wish
from tuneloop.web.words import LANGUAGES, Language, word

LONGEST = 512  # tokens of an answer, until a person wants more
PAUSE = 0.05  # seconds between two drawings of an answer that is being written
SHARE = 4.0  # times as long as a drawing took the server does other things before the next
ENTER = "(e) => { if (e.key === 'Enter' && !e.shiftKey && !e.isComposing && e.keyCode !== 229) "
ENTER += "{ e.preventDefault(); emit(); } }"  # an Enter that ends the spelling of Chinese characters sends nothing
DOWN = "const page = document.documentElement; if (page.scrollHeight - page.scrollTop - innerHeight < 240) "
DOWN += "page.scrollTo({top: page.scrollHeight})"  # who reads further up is left there


@dataclass(eq=False)
class Turn:
    """A question with its answer, as far as it has come, and the elements that show it."""

    asked: str
    text: str = ""
    answer_id: str | None = None
    note: str = ""
    verdict: Verdict | None = None
    seen: tuple[ui.html, ui.label, ui.row] | None = None


@dataclass
class State:
    """One open page; nothing of it is kept when it is closed."""

    language: Language
    model: str
    max_tokens: float | None
    system: str = ""
    temperature: float | None = 0.0
    turns: list[Turn] = field(default_factory=list[Turn])
    work: asyncio.Task[None] | None = None

    def messages(self) -> list[Message]:
        """The conversation up to the last question, without questions that were not answered."""
        found = [Message("system", self.system)] if self.system.strip() else []
        for turn in self.turns[:-1]:
            if turn.text:
                found += [Message("user", turn.asked), Message("assistant", turn.text)]
        return [*found, Message("user", self.turns[-1].asked)]


class Chat:
    """The elements of one open page and what they do."""

    def __init__(self, talk: Talk, state: State) -> None:
        self.talk, self.state = talk, state

    def say(self, name: str, **values: str) -> str:
        """A text in the page's language."""
        return word(name, self.state.language, **values)

    # -- what is seen -------------------------------------------------------------------------------------------------
    @ui.refreshable_method
    def page(self) -> None:
        """The whole page; drawn again when the language changes and for a new conversation."""
        ui.run_javascript(f'document.documentElement.lang = "{self.state.language}"')
        with ui.element("div").classes("tl-page").on("keydown.escape", self.stop):
            self._header()
            label = f'role="log" aria-live="polite" aria-label="{self.say("talk")}"'
            with ui.element("main").classes("tl-talk").props(label) as self.log:
                if not self.state.turns:
                    self._greet()
                for turn in self.state.turns:
                    self._turn(turn)
            self._composer()
        if self.state.work:
            self._busy(True)

    def _header(self) -> None:
        with ui.element("header").classes("tl-header"), ui.row().classes("tl-bar"):
            ui.label("tuneloop").classes("tl-name")
            models = list(self.talk.models())
            if len(models) > 1:
                ui.select(models, value=self.state.model, on_change=self._sets("model")).props(
                    f'dense options-dense borderless aria-label="{self.say("model")}"'
                ).classes("tl-model")
            else:
                ui.label(self.state.model).classes("tl-model")
            ui.space()
            self._icon("add", "new", self.renew)
            with self._icon("tune", "settings"), ui.menu().classes("tl-settings").props("persistent=false"):
                self._settings()
            self._icon("contrast", "theme").on("click", js_handler=frame.switch_theme())
            ui.button(self.say("language"), on_click=self.translate, color=None).props("flat dense no-caps").classes(
                "tl-language"
            )
            if self.talk.named:
                with ui.element("form").props('method="post" action="/logout"'):
                    self._icon("logout", "leave").props("type=submit")

    def _settings(self) -> None:
        state, most = self.state, self.talk.most_tokens
        ui.textarea(self.say("system"), value=state.system, on_change=self._sets("system")).props("outlined autogrow")
        ui.number(
            self.say("length"), value=state.max_tokens, min=1, max=most, precision=0, on_change=self._sets("max_tokens")
        ).props("outlined")
        ui.number(
            self.say("temperature"),
            value=state.temperature,
            min=0,
            max=2,
            step=0.1,
            on_change=self._sets("temperature"),
        ).props("outlined")

    def _sets(self, name: str) -> Callable[[Any], None]:
        return lambda event: setattr(self.state, name, event.value)

    def _icon(self, icon: str, name: str, act: Callable[..., Any] | None = None) -> ui.button:
        button = ui.button(icon=icon, on_click=act, color=None).props(f'flat round dense aria-label="{self.say(name)}"')
        with button:
            ui.tooltip(self.say(name))
        return button

    def _greet(self) -> None:
        with ui.column().classes("tl-greeting") as self.greeting:
            ui.label(self.say("empty")).classes("tl-question")
            ui.label(self.say("hint")).classes("tl-hint")

    def _composer(self) -> None:
        with ui.element("footer").classes("tl-footer"), ui.row().classes("tl-composer"):
            self.input = (
                ui.textarea(placeholder=self.say("ask"))
                .props(f'autogrow outlined dense autofocus input-class="tl-input" aria-label="{self.say("ask")}"')
                .classes("tl-grow")
                .on("keydown", self.send, js_handler=ENTER)
            )
            with ui.button(icon="send", on_click=self.send_or_stop, color=None).props(
                "flat round dense"
            ) as self.button:
                self.tip = ui.tooltip("")
            self._busy(False)

    def _turn(self, turn: Turn) -> None:
        ui.label(turn.asked).classes("tl-asked")
        with ui.column().classes("tl-answer"):
            text = ui.html(to_html(turn.text), sanitize=True).classes("tl-text")
            with ui.row().classes("tl-below"):
                note, actions = ui.label(turn.note).classes("tl-note"), ui.row().classes("tl-actions")
        turn.seen = (text, note, actions)
        if turn is not self.state.turns[-1] or not self.state.work:
            self._over(turn)

    def _over(self, turn: Turn) -> None:
        """What can be done with an answer that is written."""
        assert turn.seen is not None
        _, note, actions = turn.seen
        note.text = turn.note
        with actions:
            if turn.answer_id is not None and self.talk.rates:
                rating.buttons(turn, self.say, self._icon, lambda verdict: self._keep(turn, verdict))
            if turn.text:
                self._icon("content_copy", "copy", lambda: self._copy(turn))

    # -- what is done -------------------------------------------------------------------------------------------------
    async def send_or_stop(self) -> None:
        """The button beside the field."""
        await (self.stop() if self.state.work else self.send())

    async def send(self) -> None:
        """Asks what stands in the field."""
        asked = (self.input.value or "").strip()
        if not asked or self.state.work:
            return
        self.input.value = ""
        turn = Turn(asked)
        if not self.state.turns:
            self.greeting.delete()
        self.state.turns.append(turn)
        self.state.work = asyncio.create_task(self._answer(turn))
        with self.log:
            self._turn(turn)
            ui.run_javascript("document.documentElement.scrollTo({top: document.documentElement.scrollHeight})")
        self._busy(True)

    async def stop(self) -> None:
        """Gives the answer under way up; what is there stays."""
        if self.state.work:
            self.state.work.cancel()

    async def _answer(self, turn: Turn) -> None:
        state = self.state
        wish = Wish(state.model, state.max_tokens or LONGEST, state.temperature or 0.0)  # type: ignore[arg-type]
        try:
            async with aclosing(self.talk.answer(state.messages(), wish)) as pieces:  # type: ignore[type-var]
                async for said in pieces:
                    await self._show(turn, said)
            turn.note = turn.note or ("" if turn.text else self.say("silent"))
        except Denied as denied:
            turn.note = self.say(f"not_{denied.reason}", detail=denied.detail)
        except asyncio.CancelledError:
            turn.note = self.say("stopped")
        finally:
            if state.work is asyncio.current_task():
                state.work = None
            if turn in state.turns:  # else the page was closed or a new conversation begun
                self._over(turn)
                self._busy(False)
                self._draw(turn)

    async def _show(self, turn: Turn, said: Said) -> None:
        turn.text += said.text
        turn.answer_id = said.answer_id
        if said.cut:
            turn.note = self.say("cut")
        begun = time.perf_counter()
        self._draw(turn)
        # pieces gather meanwhile: drawing a long answer for each of them would leave no time for anybody else
        await asyncio.sleep(PAUSE + SHARE * (time.perf_counter() - begun))

    def _draw(self, turn: Turn) -> None:
        assert turn.seen is not None
        turn.seen[0].content = to_html(turn.text)
        with self.log:
            ui.run_javascript(DOWN)

    def _busy(self, busy: bool) -> None:
        name: Literal["stop", "send"] = "stop" if busy else "send"
        self.button.props(f'icon={name} aria-label="{self.say(name)}"')
        self.tip.text = self.say(name)
        self.log.props(f"aria-busy={str(busy).lower()}")

    async def _keep(self, turn: Turn, verdict: Verdict) -> bool:
        assert turn.answer_id is not None
        try:
            await self.talk.rate(turn.answer_id, verdict)
        except Denied as denied:
            ui.notify(
                self.say(f"not_{denied.reason}", detail=denied.detail), type="negative", position="top", group=False
            )
            return False
        turn.verdict = verdict
        ui.notify(self.say("thanks"), type="positive", position="top", group=False, timeout=2000)
        return True

    def _copy(self, turn: Turn) -> None:
        ui.clipboard.write(turn.text)
        ui.notify(self.say("copied"), position="top", group=False, timeout=1000)

    def renew(self) -> None:
        """Begins a new conversation."""
        self.close()
        self.page.refresh()

    def close(self) -> None:
        """Gives up what is under way and forgets the conversation: the browser is gone, or wants a new one."""
        if self.state.work:
            self.state.work.cancel()
        self.state.work = None
        self.state.turns = []

    def translate(self) -> None:
        """The other language, also for the next visit."""
        self.state.language = next(other for other in LANGUAGES if other != self.state.language)
        ui.run_javascript(frame.keep("language", f'"{self.state.language}"'))
        self.page.refresh()


def add() -> None:
    """Adds the page to those of `frame.application`. The request's scope tells whom the visitor talks to (`talk`)."""

    @ui.page("/")
    def chat(request: Request) -> None:
        talk: Talk = request.scope["talk"]
        frame.dress(request)
        longest = min(LONGEST, talk.most_tokens)
        page = Chat(talk, State(frame.language_of(request), talk.models()[0], longest))
        page.page()
        ui.context.client.on_delete(page.close)
