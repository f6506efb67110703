"""What went wrong in a run and what to do: failed requests by kind and status, with the server's own words.

Pure, from the raw records. Words are a server's: one line each, of bounded length, with control characters
shown and not obeyed; HTML and markup are escaped by whoever writes them into a page or a terminal.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from bench.point import Point
from bench.records.model import Record, RequestError, Run
from serving import wire

ROUTES = {"completions": "/v1/completions", "chat": "/v1/chat/completions"}
MOST_NOTES = 5
BRIEF = 140
SERVER_LOG = "see the server's log"

BY_STATUS: dict[int, str] = {
    400: "the request is refused, its words say why: --strict-openai leaves out ignore_eos and min_tokens, "
    "--endpoint chat or completions, fewer --input-tokens or --output-tokens",
    401: "name the variable that holds the key: --api-key-env NAME (scenario: settings: {api_key_env: NAME})",
    403: "a key that may do this: --api-key-env NAME (scenario: settings: {api_key_env: NAME})",
    404: "{asked} was asked: give the base address without /v1, a model that curl {base}/v1/models lists, "
    "--endpoint chat or completions",
    405: "{asked} was asked: give the base address without /v1, --endpoint chat or completions",
    408: "the server gave up first: lower --concurrency or --rate, or raise its own time limit",
    413: "the request is too long for it: lower --input-tokens",
    422: "the request is refused, its words say why: --strict-openai leaves out ignore_eos and min_tokens",
    429: "it allows fewer requests: lower --concurrency or --rate",
    500: SERVER_LOG,
    502: "the gateway reaches no server: is it started? curl {base}/v1/models",
    503: "it has no room or is still starting: curl {base}/health; lower --concurrency or --rate",
    504: "the gateway's time limit is shorter than the answers: raise it, or lower --output-tokens",
}
"""Status -> what to type. `{asked}` and `{base}` are addresses."""

BY_KIND: dict[RequestError, str] = {
    RequestError.CONNECT: "is the server running there? curl {base}/v1/models",
    RequestError.RESET: f"the server or a gateway closed the connection: {SERVER_LOG}; lower --concurrency",
    RequestError.TIMEOUT: "give requests more time (--timeout 600s; scenario: request_timeout_s: 600), "
    "or lower the load",
    RequestError.SILENT: f"the server took requests and said nothing more: {SERVER_LOG}",
    RequestError.HTTP_STATUS: SERVER_LOG,
    RequestError.RATE_LIMITED: BY_STATUS[429],
    RequestError.IN_STREAM: SERVER_LOG,
    RequestError.TRUNCATED: f"the answer ended early: {SERVER_LOG}, and any gateway's time limit",
    RequestError.MALFORMED: "the answer is not what OpenAI's API sends: is a gateway changing it? "
    "curl -N {asked} shows it",
    RequestError.EMPTY: "a success without output: curl -N {asked} shows it; --endpoint chat or completions",
    RequestError.TOO_LARGE: "no answer is that long: is it the right address? {asked}",
}


@dataclass(frozen=True, slots=True)
class Failed:
    """Failed requests of one kind and HTTP status; `words` are of the earliest and those heard most often.

    hint: what to type.
    """

    kind: RequestError
    status: int | None
    count: int
    first_words: str
    frequent_words: str
    frequent_count: int
    hint: str = ""

    @property
    def name(self) -> str:
        """`http status 404`, `connect`."""
        with_status = self.status is not None and self.status != 200
        return self.kind.value.replace("_", " ") + (f" {self.status}" if with_status else "")

    @property
    def said(self) -> str:
        """Both words where they differ, else the one."""
        if self.first_words == self.frequent_words:
            return self.first_words
        return f"{self.frequent_words} ({self.frequent_count} times); first: {self.first_words}"


def failed(records: Iterable[Record]) -> tuple[Failed, ...]:
    """The groups, the largest first. What was still running when the load stopped is not among them."""
    groups: dict[tuple[RequestError, int | None], list[Record]] = {}
    for record in records:
        if record.error is not None and record.error is not RequestError.CENSORED:
            groups.setdefault((record.error, record.status), []).append(record)
    found = [_group(kind, status, members) for (kind, status), members in groups.items()]
    return tuple(sorted(found, key=lambda group: (-group.count, group.name)))


def of_run(run: Run) -> tuple[Failed, ...]:
    """The same with what to type, which names the address that was asked."""
    return tuple(replace(group, hint=hint(group, run.point)) for group in failed(run.records))


def heard(run: Run) -> tuple[str, ...]:
    """What the client noted of a server that answers: a failing warm-up, answers that are whole and odd."""
    odd = Counter(wire.line(r.error_detail) for r in run.records if r.error is None and r.error_detail)
    told = [f"{count} of the answers: {said}" for said, count in odd.most_common(MOST_NOTES)]
    return tuple(wire.line(note) for note in (*(run.client.notes if run.client else ()), *told))


def brief(group: Failed) -> str:
    """`8 × http status 404: no such route`."""
    words = wire.line(group.frequent_words, BRIEF)
    return f"{group.count} × {group.name}: {words}" if words else f"{group.count} × {group.name}"


def as_json(groups: Sequence[Failed]) -> list[dict[str, Any]]:
    """`[{kind, status, count, first_words, frequent_words, frequent_count, hint}]`."""
    return [{**asdict(group), "kind": group.kind.value} for group in groups]


def merged(groups: Iterable[Failed]) -> tuple[Failed, ...]:
    """Groups of several runs together: counts added up, words of the largest."""
    together: dict[tuple[RequestError, int | None], list[Failed]] = {}
    for group in groups:
        together.setdefault((group.kind, group.status), []).append(group)
    found = []
    for members in together.values():
        largest = max(members, key=lambda group: group.frequent_count)
        found.append(
            replace(
                largest,
                count=sum(group.count for group in members),
                first_words=members[0].first_words,
                frequent_count=sum(
                    g.frequent_count for g in members if g.frequent_words == largest.frequent_words
                ),
            )
        )
    return tuple(sorted(found, key=lambda group: (-group.count, group.name)))


def _group(kind: RequestError, status: int | None, members: Sequence[Record]) -> Failed:
    first = min(members, key=lambda record: (record.planned_s, record.index))
    details = Counter(record.error_detail for record in members)
    words, count = details.most_common(1)[0]
    return Failed(
        kind, status, len(members), _words(first.error_detail, status), _words(words, status), count
    )


def _words(detail: str, status: int | None) -> str:
    """The words without the status, which stands beside them."""
    return wire.line(detail.removeprefix(f"{status}: ") if status is not None else detail)


def hint(group: Failed, point: Point) -> str:
    """What to type about it, with the address that this point asked."""
    base = (point.config.url or "URL").rstrip("/")
    asked = base + ROUTES[point.load.endpoint]
    if "certificate" in group.first_words.lower():
        return f"a certificate that this machine does not trust: export SSL_CERT_FILE=FILE.pem for {base}"
    if group.status is not None and 300 <= group.status < 400:
        return "give the address it redirects to as the URL"
    if group.kind in (RequestError.HTTP_STATUS, RequestError.RATE_LIMITED) and group.status is not None:
        known = BY_STATUS.get(group.status, BY_KIND[group.kind])
    else:
        known = BY_KIND[group.kind]
    return known.replace("{asked}", asked).replace("{base}", base)
