"""Exchange + what was asked -> Record. Stamps become seconds from the start of the load."""

from __future__ import annotations

from bench.client.exchange import Exchange
from bench.client.job import Request
from bench.client.response import Response, parse
from bench.records.model import Record


def record(exchange: Exchange, request: Request, start_s: float, worker: int) -> tuple[Record, str]:
    """The Record, and all text of the answer, reasoning first (for counting; not kept in the record)."""
    answer = parse(exchange)

    def since(stamp: float | None) -> float | None:
        return None if stamp is None else stamp - start_s

    events = tuple(stamp - start_s for stamp in answer.event_s)
    return Record(
        index=exchange.index,
        planned_s=exchange.planned_s - start_s,
        sent_s=since(exchange.sent_s),
        connected_s=since(exchange.connected_s),
        header_s=since(answer.header_s),
        first_s=events[0] if events else None,
        first_answer_s=since(answer.first_answer_s),
        last_s=events[-1] if events else _end_of_whole(answer, since(exchange.closed_s)),
        closed_s=since(exchange.closed_s),
        event_s=events,
        event_tokens=tuple(answer.event_tokens),
        asked_input_tokens=request.input_tokens if exchange.index == request.index else 0,
        asked_output_tokens=request.output_tokens,
        input_tokens=answer.input_tokens,
        output_tokens=answer.output_tokens,
        cached_input_tokens=answer.cached_input_tokens,
        reasoning_tokens=answer.reasoning_tokens,
        output_bytes=_bytes(answer),
        finish_reason=answer.finish_reason,
        status=answer.status,
        error=answer.error,
        error_detail=answer.detail,
        session=exchange.session if exchange.session >= 0 else None,
        worker=worker,
    ), answer.reasoning + answer.text


def _bytes(answer: Response) -> int | None:
    """UTF-8 bytes of all output that was shown; surrogates count as what replaces them."""
    shown = (answer.reasoning + answer.text).encode(errors="replace")
    return len(shown) if answer.error is None else None


def _end_of_whole(answer: Response, closed_s: float | None) -> float | None:
    """Not streamed: the whole body is the one output there is; it has an end and no first token."""
    return closed_s if not answer.streamed and answer.error is None else None
