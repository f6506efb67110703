"""Reads a server's /metrics while it is under load, as cheaply as it lets us.

Everything (with the histograms, some 600 lines on vLLM) is read twice: before the load and after it. In
between only gauges and counters are asked for by name (`/metrics/?name[]=`: the Prometheus client's own
application then renders nothing else; vLLM answers without the slash by another one, which does not know
the parameter). A server that knows neither sends everything, of which only those lines are parsed, and
is asked less often when answering costs it much: 4 ms of vLLM's one API process, measured.
"""

from __future__ import annotations

import http.client
import time
from urllib.parse import urlencode, urlsplit

from bench.records.model import Sample
from bench.telemetry.exposition import Exposition, NotExpositionError, flatten, only

TIMEOUT_S = 5.0
LAST_TIMEOUT_S = 15.0
LARGEST_BYTES = 32 * 2**20
SERVER_BUDGET_SHARE = 0.005
"""Share of the wall time that the server may spend answering us, by its quickest answer so far."""
LONGEST_PAUSE_S = 2.0


class ServerProbe:
    """Samples `server:*` of one server. A failed scrape is counted and noted, and the next one tried."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self._address = parts.netloc
        self._path = parts.path.rstrip("/") + "/metrics"
        self._connection: http.client.HTTPConnection | None = None
        self._scalars: tuple[str, ...] = ()
        self._by_name = True
        self._available = True
        self.scrapes = 0
        self.failures = 0
        self._last_failure = ""
        self._quickest_s = float("inf")
        self._next_at = 0.0
        self.notes: list[str] = []

    def read(self, last: bool = False) -> list[Sample]:
        """One scrape: whole when it is the first that works (then both) or the last, else by name."""
        if not self._available or (not last and time.monotonic() < self._next_at):
            return []
        known = bool(self._scalars)
        found = self._scrape(last)
        if self._scalars and not known and not last:
            found += self._scrape(last)  # before the load: whether names are honoured, and what that costs
        if last:
            self._close()
            if self.failures:
                self.notes.append(
                    f"{self.failures} of {self.scrapes} scrapes of /metrics failed; "
                    f"the last failure: {self._last_failure}"
                )
        return found

    def _scrape(self, last: bool) -> list[Sample]:
        self.scrapes += 1
        begun = time.monotonic()
        try:
            found = self._whole(last) if last or not self._scalars else self._part()
        except (OSError, http.client.HTTPException, NotExpositionError) as error:
            self.failures += 1
            self._last_failure = f"{type(error).__name__}: {error}"
            self._close()
            return []
        if found is None:
            return []
        ended = time.monotonic()
        self._quickest_s = min(self._quickest_s, ended - begun)
        self._next_at = ended + min(self._quickest_s / SERVER_BUDGET_SHARE, LONGEST_PAUSE_S)
        now = (begun + ended) / 2
        return [Sample(now, f"server:{name}", value) for name, value in found.values.items()]

    def _whole(self, last: bool) -> Exposition | None:
        status, text = self._get(self._path, LAST_TIMEOUT_S if last else TIMEOUT_S)
        if status in (401, 403, 404, 405, 501) or 300 <= status < 400:
            self._available = False
            self.notes.append(f"server series not available: /metrics answers HTTP {status}")
            return None
        if status != 200:
            raise NotExpositionError(f"HTTP {status}")
        found = flatten(text)
        if not self._scalars and found.scalars:
            self._scalars = found.scalars
        return found

    def _part(self) -> Exposition:
        query = "/?" + urlencode([("name[]", name) for name in self._scalars]) if self._by_name else ""
        status, text = self._get(self._path + query, TIMEOUT_S)
        found = flatten(only(text, self._scalars)) if status == 200 else Exposition({})
        if found.values:
            return found
        if not self._by_name:
            raise NotExpositionError("none of the series known" if status == 200 else f"HTTP {status}")
        self._by_name = False  # no such address, or a registry that does not know its own names
        return self._part()

    def _get(self, path: str, timeout_s: float) -> tuple[int, str]:
        """Status and body. A kept connection that the server has closed meanwhile is opened again, once."""
        kept = self._connection is not None
        try:
            return self._exchange(path, timeout_s)
        except (ConnectionError, http.client.BadStatusLine):
            if not kept:
                raise
            self._close()
            return self._exchange(path, timeout_s)

    def _exchange(self, path: str, timeout_s: float) -> tuple[int, str]:
        if self._connection is None:
            self._connection = self._kind(self._address, timeout=timeout_s)
        connection = self._connection
        if connection.sock is not None:
            connection.sock.settimeout(timeout_s)
        connection.request("GET", path, headers={"Accept": "text/plain", "Accept-Encoding": "identity"})
        response = connection.getresponse()
        body = response.read(LARGEST_BYTES + 1)
        if len(body) > LARGEST_BYTES:
            raise NotExpositionError(f"more than {LARGEST_BYTES} bytes")
        return response.status, body.decode("utf-8", errors="replace")

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
