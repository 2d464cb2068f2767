"""The page at `/`: talk to the model, see the answer come, say what was good or bad about it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass, field

import markdown2
from fastapi import FastAPI, Form, Request
from fastapi.responses import RedirectResponse
from nicegui import ui
from nicegui.events import ValueChangeEventArguments

from tuneloop.core.conversation import Message
from tuneloop.web import frame
from tuneloop.web.talk import Said, Talk, Wish
from tuneloop.web.words import LANGUAGES, Language, word

USER = "user"  # key of the session: who logged in


def to_html(text: str) -> str:
    """Markdown of an answer as HTML; HTML in it is shown as text, links other than to the web are dropped.

    The browser sanitises once more, and the Content-Security-Policy lets no script and no outside image through.
    """
    return markdown2.markdown(text, safe_mode="escape", extras=["fenced-code-blocks", "tables", "break-on-newline"])


@dataclass
class Turn:
    """A question with its answer, as far as it has come."""

    asked: str
    text: str = ""
    answer_id: str | None = None
    note: str = ""
    thumb: int | None = None


@dataclass
class State:
    """One open page; nothing of it is kept when it is closed."""

    user: str
    language: Language
    model: str
    system: str = ""
    max_tokens: int = 512
    temperature: float = 0.0
    turns: list[Turn] = field(default_factory=list[Turn])
    work: asyncio.Task[None] | None = None

    def messages(self) -> list[Message]:
        """The conversation up to the last question."""
        found = [Message("system", self.system)] if self.system.strip() else []
        for turn in self.turns[:-1]:
            if turn.answer_id is not None:
                found += [Message("user", turn.asked), Message("assistant", turn.text)]
        return [*found, Message("user", self.turns[-1].asked)]


class Chat:
    """The elements of one open page and what they do."""

    def __init__(self, talk: Talk, state: State) -> None:
        self.talk, self.state = talk, state

    def say(self, name: str, **values: str) -> str:
        return word(name, self.state.language, **values)

    # -- what is seen -------------------------------------------------------------------------------------------------
    @ui.refreshable_method
    def page(self) -> None:
        """The whole page; drawn again when the language changes."""
        with ui.element("div").classes("tl-page"):
            self._header()
            with ui.column().classes("tl-talk").props('role="log" aria-live="polite"') as self.log:
                if not self.state.turns:
                    self._greet()
                for turn in self.state.turns:
                    self._turn(turn)
            self._composer()

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
            with self._icon("tune", "settings", None), ui.menu().classes("tl-settings").props("persistent=false"):
                self._settings()
            self._icon("contrast", "theme", lambda: dark.toggle())
            ui.button(self.say("language"), on_click=self.translate).props("flat dense no-caps").classes("tl-language")
            dark = ui.dark_mode(None)

    def _settings(self) -> None:
        state = self.state
        ui.textarea(self.say("system"), value=state.system, on_change=self._sets("system")).props("outlined autogrow")
        ui.number(
            self.say("length"), value=state.max_tokens, min=1, max=32_768, precision=0, on_change=self._sets("max_tokens")
        ).props("outlined")
        ui.number(
            self.say("temperature"), value=state.temperature, min=0, max=2, step=0.1, on_change=self._sets("temperature")
        ).props("outlined")

    def _sets(self, name: str) -> Callable[[ValueChangeEventArguments], None]:
        return lambda event: setattr(self.state, name, event.value)

    def _icon(self, icon: str, name: str, act: object) -> ui.button:
        button = ui.button(icon=icon, on_click=act if callable(act) else None).props(f'flat round dense aria-label="{self.say(name)}"')
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
                .on("keydown.enter.exact.prevent", self.send, js_handler="(e) => { if (!e.isComposing) emit(e); }")
                .on("keydown.escape", self.stop)
            )
            self.button = self._icon("send", "send", self.send_or_stop)

    def _turn(self, turn: Turn) -> None:
        with ui.column().classes("tl-asked"):
            ui.label(turn.asked)
        with ui.column().classes("tl-answer"):
            text = ui.html(to_html(turn.text), sanitize=True).classes("tl-text")
            with ui.row().classes("tl-below"):
                note = ui.label(turn.note).classes("tl-note")
                actions = ui.row().classes("tl-actions")
            if turn.answer_id is not None:
                with actions:
                    self._rating(turn)
        self._shown = (text, note, actions)

    def _rating(self, turn: Turn) -> None:
        good = self._icon("thumb_up_off_alt", "good", None)
        bad = self._icon("thumb_down_off_alt", "bad", None)

        async def vote(thumb: int) -> None:
            if await self._keep(turn, thumb, None, ""):
                turn.thumb = thumb
                good.props(f"icon={'thumb_up' if thumb == 1 else 'thumb_up_off_alt'}")
                bad.props(f"icon={'thumb_down' if thumb == -1 else 'thumb_down_off_alt'}")

        good.on_click(lambda: vote(1))
        bad.on_click(lambda: vote(-1))
        self._icon("edit", "correct", lambda: self._correct(turn))
        self._icon("content_copy", "copy", lambda: self._copy(turn))

    def _correct(self, turn: Turn) -> None:
        with ui.dialog() as dialog, ui.card().classes("tl-card"):
            better = ui.textarea(self.say("better"), value=turn.text).props("outlined autogrow autofocus")
            comment = ui.textarea(self.say("why")).props("outlined autogrow")

            async def save() -> None:
                corrected = better.value if better.value.strip() and better.value != turn.text else None
                if await self._keep(turn, turn.thumb if turn.thumb is not None else -1, corrected, comment.value or ""):
                    dialog.close()

            with ui.row().classes("tl-right"):
                ui.button(self.say("cancel"), on_click=dialog.close).props("flat no-caps")
                ui.button(self.say("save"), on_click=save).props("unelevated no-caps")
        dialog.open()

    # -- what is done -------------------------------------------------------------------------------------------------
    async def send_or_stop(self) -> None:
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
        with self.log:
            self._turn(turn)
        self.state.work = asyncio.create_task(self._answer(turn))

    async def stop(self) -> None:
        """Gives the answer under way up; what is there stays."""
        if self.state.work:
            self.state.work.cancel()

    async def _answer(self, turn: Turn) -> None:
        text, note, actions = self._shown
        self._busy(True)
        wish = Wish(self.state.model, int(self.state.max_tokens or 512), float(self.state.temperature or 0))
        try:
            async with aclosing(self.talk.answer(self.state.user, self.state.messages(), wish)) as pieces:  # type: ignore[type-var]
                async for said in pieces:
                    turn.text += said.text
                    text.content = to_html(turn.text)
                    self._end(turn, said)
                    self._down()
        except asyncio.CancelledError:
            turn.note = self.say("stopped")
        finally:
            self.state.work = None
            note.text = turn.note
            if turn.answer_id is not None:
                with actions:
                    self._rating(turn)
            self._busy(False)
            self._down()

    def _end(self, turn: Turn, said: Said) -> None:
        turn.answer_id = said.answer_id or turn.answer_id
        if said.why is not None:
            turn.note = self.say("failed", why=said.why)
        elif said.cut:
            turn.note = self.say("cut")

    def _busy(self, busy: bool) -> None:
        name = "stop" if busy else "send"
        self.button.props(f'icon={name} aria-label="{self.say(name)}"')

    def _down(self) -> None:
        with self.log:
            ui.run_javascript("window.scrollTo({top: document.body.scrollHeight})")

    async def _keep(self, turn: Turn, thumb: int, corrected: str | None, comment: str) -> bool:
        assert turn.answer_id is not None
        try:
            await self.talk.rate(self.state.user, turn.answer_id, thumb, corrected, comment)
        except Exception as error:  # noqa: BLE001 - told to the person who voted
            ui.notify(self.say("not_kept", why=str(error)), type="negative")
            return False
        ui.notify(self.say("thanks"), type="positive")
        return True

    def _copy(self, turn: Turn) -> None:
        ui.clipboard.write(turn.text)
        ui.notify(self.say("copied"))

    async def renew(self) -> None:
        """Begins a new conversation."""
        await self.stop()
        self.state.turns.clear()
        self.page.refresh()

    def translate(self) -> None:
        """The other language."""
        self.state.language = next(other for other in LANGUAGES if other != self.state.language)
        self.page.refresh()


def add(app: FastAPI, talk: Talk) -> None:
    """Adds `/` and `/login` to the app, before `frame.mount`."""

    @ui.page("/", title="tuneloop")
    def chat(request: Request) -> RedirectResponse | None:
        user = request.session.get(USER) or (frame.session() if talk.open else None)
        if user is None:
            return RedirectResponse("/login")
        frame.dress()
        Chat(talk, State(user, frame.language_of(request), talk.models()[0])).page()
        return None

    @ui.page("/login", title="tuneloop")
    def login(request: Request, wrong: bool = False) -> None:
        language = frame.language_of(request)
        frame.dress()
        with ui.element("form").props('method="post" action="/session"').classes("tl-login"):
            ui.label(word("login", language)).classes("tl-question")
            if wrong:
                ui.label(word("wrong_key", language)).classes("tl-wrong")
            ui.input(word("key", language)).props('name="key" type="password" outlined autofocus autocomplete="current-password"')
            ui.button(word("enter", language)).props('type="submit" unelevated no-caps')

    @app.post("/session", include_in_schema=False)
    def enter(request: Request, key: str = Form(max_length=200)) -> RedirectResponse:
        user = talk.login(key)
        if user is None:
            return RedirectResponse("/login?wrong=true", status_code=303)
        request.session[USER] = user
        return RedirectResponse("/", status_code=303)
