"""Dialogs: questions to the operator, the help, and the filter line."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar, NamedTuple

from textual import events
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Button, Input, Label

from tui.draw.canvas import Canvas, Line, Pager
from tui.draw.tones import Spans
from tui.words import fit


class Text(Canvas):
    """Lines that never change."""

    def __init__(self, lines: list[Line]) -> None:
        super().__init__()
        self.fixed = lines
        self.styles.height = len(lines)

    def draw(self, width: int, height: int) -> list[Line]:
        return self.fixed


class Toggle(Canvas, can_focus=True):
    """An option that is on or off, shown as `[x]` or `[ ]`."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("space,enter", "flip", "flip", show=False)]

    def __init__(self, word: str, *, id: str) -> None:  # noqa: A002
        super().__init__(id=id)
        self.word = word
        self.value = False
        self.styles.width = len(word) + 6

    def draw(self, width: int, height: int) -> list[Line]:
        return [
            Line(
                [(f"[{'x' if self.value else ' '}] ", "key"), (self.word, "on" if self.has_focus else "text")]
            )
        ]

    def set(self, value: bool, word: str = "") -> None:
        """Be on or off, with this word if there is one."""
        self.value, self.word = value, word or self.word
        self.styles.width = len(self.word) + 6
        self.paint()

    def action_flip(self) -> None:
        self.set(not self.value)

    def on_click(self) -> None:
        self.action_flip()

    def on_focus(self) -> None:
        self.paint()

    def on_blur(self) -> None:
        self.paint()


class Choice(NamedTuple):
    """One answer to a question, and the key that gives it."""

    key: str
    word: str
    value: str
    variant: str = "default"


class Ask(ModalScreen[str | None]):
    """A question with a few answers. The first one has the focus, so it is the harmless one. Escape gives
    None."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "leave", "leave"),
        Binding("left,h", "app.focus_previous", "previous", show=False),
        Binding("right,l", "app.focus_next", "next", show=False),
    ]

    def __init__(
        self, title: str, lines: Sequence[Spans], choices: Sequence[Choice], *, danger: bool = False
    ) -> None:
        super().__init__()
        self.heading = title
        self.lines = [Line(spans) for spans in lines]
        self.choices = choices
        self.danger = danger

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog danger" if self.danger else "dialog") as box:
            box.border_title = Content(self.heading)
            yield Text(self.lines)
            with Horizontal(classes="buttons"):
                for choice in self.choices:
                    label = Content(f"{choice.word}  {choice.key}")
                    yield Button(label, id=f"choice-{choice.key}", variant=choice.variant, compact=True)  # type: ignore[arg-type]

    def on_mount(self) -> None:
        self.set_focus(self.query(Button).first())

    def on_key(self, event: events.Key) -> None:
        for choice in self.choices:
            if event.key == choice.key or event.character == choice.key:
                event.stop()
                self.dismiss(choice.value)
                return

    def on_button_pressed(self, event: Button.Pressed) -> None:
        key = (event.button.id or "").removeprefix("choice-")
        self.dismiss(next(choice.value for choice in self.choices if choice.key == key))

    def action_leave(self) -> None:
        self.dismiss(None)


class AskText(ModalScreen[str | None]):
    """Asks for a line of text. Escape, or nothing, gives None; where the text is `optional`, nothing
    gives an empty one. What is `secret` is not shown when typed."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "leave", "leave")]

    def __init__(
        self,
        title: str,
        about: str,
        text: str = "",
        *,
        secret: bool = False,
        hint: str = "",
        optional: bool = False,
    ) -> None:
        super().__init__()
        self.heading, self.about, self.text = title, about, text
        self.secret, self.hint, self.optional = secret, hint, optional

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog") as box:
            box.border_title = Content(self.heading)
            yield Label(Content(self.about))
            yield Input(self.text, password=self.secret, placeholder=self.hint, compact=True)

    def on_input_submitted(self, event: Input.Submitted) -> None:
        self.dismiss(event.value.strip() or ("" if self.optional else None))

    def action_leave(self) -> None:
        self.dismiss(None)


class AskToken(AskText):
    """Asks for a token, because of `cause`. It is not kept."""

    def __init__(self, cause: str) -> None:
        super().__init__("Admin token", cause, secret=True, hint="admin token of this island")


class HelpLines(Pager):
    """Groups of keys and what they do, in two columns where there is room."""

    def __init__(self, groups: list[tuple[str, list[tuple[str, str]]]]) -> None:
        super().__init__()
        self.groups = groups

    def on_resize(self) -> None:
        self.styles.height = len(self.content(self.size.width - 1))
        super().on_resize()

    def content(self, width: int) -> list[Line]:
        lines: list[Line] = []
        two = width >= 76
        room = width // 2 if two else width
        for title, keys in self.groups:
            if lines:
                lines.append(Line([]))
            lines.append(Line([(f" {title}", "title")]))
            half = (len(keys) + 1) // 2 if two else len(keys)
            for n in range(half):
                spans: Spans = []
                for m in (n, n + half) if two else (n,):
                    if m < len(keys):
                        key, word = keys[m]
                        word = fit(word, room - 17, more=self.glyphs["more"])
                        spans += [(f" {key:>14} ", "key"), (word, "text")]
                        spans.append((" ", "text"))
                lines.append(Line(spans))
        return lines


class Help(ModalScreen[None]):
    """Every key that works here, the focused pane's first; made from the bindings."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,question_mark,q,enter", "dismiss", "close")]

    def __init__(self, groups: list[tuple[str, list[tuple[str, str]]]]) -> None:
        super().__init__()
        self.groups = groups

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog wide") as box:
            box.border_title = "Help"
            box.border_subtitle = "esc closes"
            yield HelpLines(self.groups)


class FilterBar(Input):
    """The line at the bottom to type a filter in. Every letter takes effect at once."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "clear", "clear", show=False)]

    def __init__(self, changed: Callable[[str], None], done: Callable[[], None]) -> None:
        super().__init__(
            id="filter", placeholder="words   !not   fn: st: ip: code: jail:   >400ms", compact=True
        )
        self._changed = changed
        self._done = done
        self.display = False

    def open(self, text: str) -> None:
        self.display = True
        self.value = text
        self.cursor_position = len(text)
        self.screen.set_focus(self)

    def on_input_changed(self, event: Input.Changed) -> None:
        event.stop()
        if self.display:
            self._changed(event.value)

    def on_input_submitted(self, event: Input.Submitted) -> None:
        event.stop()
        self._close()

    def action_clear(self) -> None:
        self._changed("")
        self._close()

    def _close(self) -> None:
        self.display = False
        self._done()
