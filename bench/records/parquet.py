"""Records and samples in Parquet: one row a request, one row a reading; columns are the field names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from bench.records.model import Record, RequestError, Sample
from bench.store import write_whole
from serving import wire

_TUPLES = ("event_s", "event_tokens")
_TEXTS = ("finish_reason", "error_detail")


def write_records(records: Sequence[Record], path: Path) -> None:
    """All records of a point. `event_s` is a list column of seconds, `event_tokens` of counts."""
    columns = {f.name: [getattr(r, f.name) for r in records] for f in fields(Record)}
    columns["error"] = [e.value if e else None for e in columns["error"]]
    for name in _TEXTS:
        columns[name] = [None if said is None else wire.text(said) for said in columns[name]]
    _write(columns, _record_schema(), path)


def read_records(path: Path) -> tuple[Record, ...]:
    names = [f.name for f in fields(Record)]
    columns = _read(path, names)
    out = []
    for row in zip(*columns.values(), strict=True):
        values = dict(zip(columns, row, strict=True))
        for name in _TUPLES:
            values[name] = tuple(values[name])
        values["error"] = RequestError(values["error"]) if values["error"] else None
        out.append(Record(**values))
    return tuple(out)


def write_samples(samples: Sequence[Sample], path: Path) -> None:
    import pyarrow as pa

    columns = {f.name: [getattr(s, f.name) for s in samples] for f in fields(Sample)}
    schema = pa.schema([("t_s", pa.float64()), ("name", pa.dictionary(pa.int32(), pa.string())),
                        ("value", pa.float64())])  # fmt: skip
    _write(columns, schema, path)


def read_samples(path: Path) -> tuple[Sample, ...]:
    columns = _read(path, ["t_s", "name", "value"])
    return tuple(Sample(*row) for row in zip(*columns.values(), strict=True))


def _record_schema() -> Any:
    import pyarrow as pa

    kinds = {"int": pa.int64(), "float": pa.float64(), "str": pa.string(), "RequestError": pa.string()}
    columns = []
    for field in fields(Record):
        text = str(field.type)
        if text.startswith("tuple"):
            kind = pa.list_(pa.float64() if "float" in text else pa.int32())
        else:
            kind = kinds[text.removesuffix(" | None")]
        columns.append((field.name, kind))
    return pa.schema(columns)


def _write(columns: dict[str, list[Any]], schema: Any, path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.table(columns, schema=schema)
    write_whole(path, lambda part: pq.write_table(table, part, compression="zstd"))


def _read(path: Path, names: list[str]) -> dict[str, list[Any]]:
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:  # a third of the time of read_table on a thousand small files
        # Columns that are newer than the file keep their default.
        there = [name for name in names if name in file.schema_arrow.names]
        table = file.read(columns=there, use_threads=False)
    return {name: table.column(name).to_pylist() for name in there}
