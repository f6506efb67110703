"""A run that was measured and one that failed, small enough to compare field by field."""

from __future__ import annotations

from dataclasses import replace

from bench.point import Load, Point
from bench.records.model import ClientHealth, Record, RequestError, Run, Sample
from serving.config import ServingConfig
from serving.errors import Failure, FailureKind

POINT = Point(ServingConfig(engine="sim", model="m"), Load("chat", 16, 8, concurrency=2, requests=4))

RECORD = Record(
    index=0, planned_s=0.0, sent_s=0.1, header_s=0.2, first_s=0.25, last_s=0.5, closed_s=0.51,
    event_s=(0.25, 0.5), event_tokens=(1, 2), asked_input_tokens=16, asked_output_tokens=3,
    input_tokens=16, output_tokens=3, finish_reason="length", status=200,
)  # fmt: skip

RUN = Run(
    point=POINT,
    records=(RECORD, replace(RECORD, index=1, error=RequestError.RESET, error_detail="reset by peer")),
    samples=(Sample(0.0, "rss_bytes", 1e9),),
    client=ClientHealth(1, 0.1, 0.2, 2, 0.5, 1.0, ("note",)),
    effective={"max_num_seqs": 8},
    notes=("a note",),
    launch="01-abc",
)

FAILED = Run(
    point=replace(POINT, repeat=1),
    failure=Failure(FailureKind.OOM_LAUNCH, "no memory", "less", 1, ("line",), {"max_num_seqs": 8}),
)
