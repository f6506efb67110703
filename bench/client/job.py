"""Job: what one load process is told, as one JSON file. The requests themselves are in a file beside it.

Requests are rendered before the load starts, so that the measured path holds no JSON and no tokenizer.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class LoadJob:
    """One process's share of a load.

    closed       users that wait for their answers; else one dispatcher, by the planned time of each request
    users        of this process alone; over several workers Locust's master spreads its own number
    warm_users   how many warm-up requests go at once
    duration_s   no request starts later than this; None: until the requests are used up
    master_port  Locust master on loopback; 0: this process is alone
    own_words    closed loop by duration: for beginnings of prompts, once the planned are used up
    """

    url: str
    path: str
    headers: dict[str, str]
    api_key_env: str | None
    closed: bool
    users: int
    warm_users: int
    duration_s: float | None
    request_timeout_s: float
    silence_timeout_s: float
    worker: int
    workers: int
    master_port: int
    folder: str
    own_words: tuple[str, ...] = ()

    def write(self) -> Path:
        path = Path(self.folder) / f"job-{self.worker}.json"
        path.write_text(json.dumps(asdict(self)))
        return path

    @classmethod
    def read(cls, path: Path) -> LoadJob:
        return cls(**json.loads(path.read_text()))

    @property
    def raw(self) -> Path:
        """Where the exchanges go: bytes as they came, with their stamps."""
        return Path(self.folder) / f"raw-{self.worker}.bin"

    @property
    def requests(self) -> Path:
        return Path(self.folder) / f"requests-{self.worker}.jsonl"

    @property
    def warmups(self) -> Path:
        """Requests sent before the load, never counted."""
        return Path(self.folder) / f"warmups-{self.worker}.jsonl"

    @property
    def health(self) -> Path:
        return Path(self.folder) / f"health-{self.worker}.json"


@dataclass(frozen=True, slots=True)
class Request:
    """One request to send. `follow_ups`: what the user says next, after each answer (multi-turn).

    own: the words that only this prompt begins with, `own_at` their place in `body`.
    """

    index: int
    planned_s: float
    input_tokens: int
    output_tokens: int
    body: str
    own: str = ""
    own_at: int = -1
    session: int | None = None
    follow_ups: tuple[str, ...] = ()


def write_requests(requests: list[Request], path: Path) -> None:
    with path.open("w", encoding="utf-8") as file:
        for request in requests:
            file.write(json.dumps(asdict(request)) + "\n")


def read_requests(path: Path) -> list[Request]:
    with path.open(encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    return [Request(**{**row, "follow_ups": tuple(row["follow_ups"])}) for row in rows]
