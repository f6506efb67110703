"""Status: what a search is doing now, as one live line at the foot of a terminal.

Lines that stay (one a trial) scroll by above it. Where stderr is no terminal there are only those.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, TextIO

from serving.units import duration

if TYPE_CHECKING:
    from rich.text import Text


class StatusLine:
    """`say` prints a line that stays, `show` replaces the live one; `stop` before others print.

    Nothing is drawn before the first of them.
    """

    def __init__(self, stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self.stream, self.clock = stream or sys.stderr, clock
        self.doing, self.what, self.began, self.since = "", "", clock(), clock()
        self.live = None
        if self.stream.isatty():
            from rich.console import Console
            from rich.live import Live

            console = Console(file=self.stream, highlight=False, soft_wrap=False)
            self.live = Live(get_renderable=self.line, console=console, refresh_per_second=4, transient=True)

    def say(self, text: str) -> None:
        if self.live is None:
            print(text, file=self.stream, flush=True)
        else:
            self.live.start()
            self.live.console.print(text, markup=False, soft_wrap=True)

    def show(self, doing: str, what: str) -> None:
        """`what`: the configuration on whose launch it happens."""
        if what != self.what or doing.startswith("starting"):
            self.since = self.clock()
        self.doing, self.what = doing, what
        if self.live is not None:
            self.live.start()

    def line(self) -> Text:
        """Time since the search began, what it is doing, and how long it has been at this launch."""
        from rich.text import Text

        now = self.clock()
        if not self.doing:
            return Text("")
        return Text.assemble(
            (f"{duration(now - self.began)} gone  ", "dim"), (self.doing, "bold"),
            (f" · {duration(now - self.since)} at this launch", "dim"), f" · {self.what}",
            overflow="ellipsis", no_wrap=True,
        )  # fmt: skip

    def stop(self) -> None:
        if self.live is not None:
            self.live.stop()
