"""What a search shows while it runs: lines that stay, and in a terminal one that changes."""

from __future__ import annotations

import io

from servetune.report.search_status import StatusLine


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_without_a_terminal_only_the_lines_that_stay() -> None:
    out = io.StringIO()
    status = StatusLine(out)
    status.show("measuring 3/9 requests", "vllm fp8")
    status.say("trial 0: [fp8] 12")
    status.stop()
    assert out.getvalue() == "trial 0: [fp8] 12\n"


def test_in_a_terminal_the_line_says_what_is_done_and_for_how_long() -> None:
    out, now = Terminal(), [100.0]
    status = StatusLine(out, lambda: now[0])
    assert str(status.line()) == ""
    now[0] = 130.0
    status.show("starting the engine", "vllm fp8")
    now[0] = 142.0
    status.show("measuring 3/9 requests", "vllm fp8")
    assert str(status.line()) == "42 s gone  measuring 3/9 requests · 12 s at this launch · vllm fp8"
    status.show("starting the engine", "vllm fp8")  # the same configuration, on a fresh launch
    assert " 0 s at this launch" in str(status.line())
    status.say("trial 0: [fp8] 12")
    status.stop()
    assert "trial 0: [fp8] 12" in out.getvalue()
