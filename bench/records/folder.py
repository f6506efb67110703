"""A run on disk. `events.jsonl` is the source of truth: append-only, one line an event, flushed at once.

results/<run>/
  manifest.json              what was to run: scenario and its hash, seed, versions, hardware, git state
  scenario.yaml              the scenario's own bytes, secrets masked
  events.jsonl               started, launch, point, resumed, finished, in the order they happened
  points/<point key>/        point.json, records.parquet, samples.parquet (raw facts, schema number inside)
  launches/<nn>-<config>/    command.json, engine.log
  summary.csv, summary.parquet, report.html   derived; made again from the above at any time

A point exists when its event is in the log, and the event is written after its files are complete and
synced: a kill at any moment costs at most the point in flight. A torn last line is left out on reading.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from bench.point import Load, Point
from bench.records import parquet
from bench.records.model import SCHEMA, ClientHealth, Run
from bench.store import Log, read, write_whole
from serving import masking, wire
from serving.config import SECRETS_BY_NAME, ServingConfig
from serving.errors import BrokenRunError, Failure, FailureKind, UserError


@dataclass(frozen=True)
class RunFolder:
    """One run's folder. `create` refuses an existing one; `open` refuses what is not one."""

    path: Path

    @classmethod
    def create(cls, path: Path, manifest: Mapping[str, Any], scenario_text: bytes) -> Self:
        """A new folder with its manifest. UserError when `path` exists: nothing is written over."""
        try:
            path.mkdir(parents=True)
        except FileExistsError as error:
            raise UserError(
                f"{path} exists; a run never writes over another",
                f"go on with it: --resume --out {path}; or choose another --out",
            ) from error
        (path / "points").mkdir()
        (path / "launches").mkdir()
        write_whole(path / "scenario.yaml", masking.document(scenario_text, SECRETS_BY_NAME))
        write_whole(path / "manifest.json", json.dumps({"schema": SCHEMA, **manifest}, indent=2) + "\n")
        return cls(path)

    @classmethod
    def open(cls, path: Path) -> Self:
        """An existing run. BrokenRunError when it is none or of a newer schema."""
        if not (path / "manifest.json").is_file():
            raise BrokenRunError(
                f"{path} is not a run: it has no manifest.json", "name a folder under results/"
            )
        folder = cls(path)
        schema = folder.manifest.get("schema")
        if not isinstance(schema, int) or schema > SCHEMA:
            raise BrokenRunError(
                f"{path} has results schema {schema}; this servetune reads up to {SCHEMA}", "update servetune"
            )
        return folder

    @property
    def manifest(self) -> dict[str, Any]:
        loaded: dict[str, Any] = json.loads((self.path / "manifest.json").read_text())
        return loaded

    def append(self, kind: str, **fields: Any) -> None:
        """One event, on disk before this returns."""
        Log(self.path / "events.jsonl").append({"event": kind, **fields})

    def events(self) -> Iterator[dict[str, Any]]:
        """Every complete event in order; a line torn by a kill is passed over, anything else is an error."""
        return (event for _, event in read(self.path / "events.jsonl"))

    def done(self) -> set[str]:
        """Keys of the points that are measured or have failed for good."""
        return {event["key"] for event in self.events() if event["event"] == "point"}

    def save(self, run: Run) -> None:
        """Writes the run's files, synced, then its event."""
        target = self.path / "points" / run.point.key
        target.mkdir(exist_ok=True)
        parquet.write_records(run.records, target / "records.parquet")
        parquet.write_samples(run.samples, target / "samples.parquet")
        write_whole(target / "point.json", json.dumps(_run_to_json(run), indent=1, default=str) + "\n")
        self.append("point", key=run.point.key, failure=run.failure.kind if run.failure else None)

    def run(self, key: str) -> Run:
        """The stored Run of one point."""
        target = self.path / "points" / key
        try:
            stored = _facts((target / "point.json").read_text(encoding="utf-8"))
            records = parquet.read_records(target / "records.parquet")
            samples = parquet.read_samples(target / "samples.parquet")
        except (OSError, ValueError) as error:
            raise BrokenRunError(
                f"{target}: {error}", "the run's folder is damaged; measure it again"
            ) from error
        return _run_from_json(stored, records, samples)

    def runs(self) -> list[Run]:
        """Every measured or failed point, in the order they were finished."""
        keys = dict.fromkeys(event["key"] for event in self.events() if event["event"] == "point")
        return [self.run(key) for key in keys]


def _run_to_json(run: Run) -> dict[str, Any]:
    facts = {k: getattr(run, k) for k in _PLAIN}
    return {
        "schema": run.schema,
        "config": run.point.config.model_dump(mode="json", exclude_defaults=True),
        "load": asdict(run.point.load),
        "seed": run.point.seed,
        "repeat": run.point.repeat,
        "client": asdict(run.client) if run.client else None,
        "failure": asdict(run.failure) if run.failure else None,
        "effective": dict(run.effective),
        "notes": list(run.notes),
        **facts,
    }


_PLAIN = ("load_end_s", "started_unix_s", "ready_s", "engine_version", "simulated", "launch")


def _facts(text: str) -> dict[str, Any]:
    """A stored point's facts; half characters in the words of a server, which JSON can hold, are mended."""
    stored: dict[str, Any] = json.loads(text)
    return wire.scrubbed(stored) if "\\ud" in text else stored


def _run_from_json(stored: dict[str, Any], records: Any, samples: Any) -> Run:
    client, failure = stored["client"], stored["failure"]
    point = Point(
        ServingConfig.model_validate(stored["config"]),
        Load(**stored["load"]),
        stored["seed"],
        stored["repeat"],
    )
    return Run(
        point=point,
        records=records,
        samples=samples,
        client=ClientHealth(**{**client, "notes": tuple(client["notes"])}) if client else None,
        failure=Failure(
            **{**failure, "kind": FailureKind(failure["kind"]), "log_tail": tuple(failure["log_tail"])}
        )
        if failure
        else None,
        effective=stored["effective"],
        notes=tuple(stored["notes"]),
        schema=stored["schema"],
        **{name: stored[name] for name in _PLAIN},
    )
