"""Recorded traffic: the forms that are read, and errors that name file and line."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from bench.traffic import trace
from bench.traffic.trace import Arrival
from serving.errors import UserError

SHARED = Path(__file__).parents[3] / "shared" / "data" / "traces"


def written(folder: Path, text: str, name: str = "t.csv") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_csv_with_seconds(tmp_path: Path) -> None:
    path = written(tmp_path, "arrival_s,input_tokens,output_tokens\n5.5,10,2\n4.0,20,3\n")
    assert trace.read(path) == [Arrival(0.0, 20, 3), Arrival(1.5, 10, 2)]


def test_csv_as_azure_writes_it(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        "TIMESTAMP,ContextTokens,GeneratedTokens\n"
        "2023-11-16 18:15:46.6805900,374,44\n2023-11-16 18:15:50.9951690,396,109\n",
    )
    first, second = trace.read(path)
    assert (first.input_tokens, first.output_tokens, first.at_s) == (374, 44, 0.0)
    assert second.at_s == pytest.approx(4.314579, abs=1e-5)


@pytest.mark.parametrize("as_list", [False, True])
def test_mooncake_with_blocks(tmp_path: Path, as_list: bool) -> None:
    rows = [
        {"timestamp": 3000, "input_length": 1000, "output_length": 5, "hash_ids": [0, 1]},
        {"timestamp": 4500, "input_length": 600, "output_length": 6, "hash_ids": [0, 2]},
    ]
    lines = [json.dumps(list(row.values()) if as_list else row) for row in rows]
    path = written(tmp_path, "\n".join(lines), "t.jsonl")
    assert trace.read(path) == [Arrival(0.0, 1000, 5, (0, 1)), Arrival(1.5, 600, 6, (0, 2))]


def test_gzip_is_read_too(tmp_path: Path) -> None:
    path = tmp_path / "t.csv.gz"
    path.write_bytes(gzip.compress(b"arrival_s,input_tokens,output_tokens\n0,1,1\n"))
    assert trace.read(path) == [Arrival(0.0, 1, 1)]


def test_cut_by_requests_and_duration(tmp_path: Path) -> None:
    rows = "".join(f"{i},1,1\n" for i in range(10))
    path = written(tmp_path, "arrival_s,input_tokens,output_tokens\n" + rows)
    assert len(trace.read(path, requests=3)) == 3
    assert len(trace.read(path, duration_s=4.5)) == 5


@pytest.mark.parametrize(
    ("text", "name", "said"),
    [
        ("a,b\n1,2\n", "t.csv", "t.csv:1: no column of arrival time; found a, b"),
        ("arrival_s,input_tokens,output_tokens\n0,x,1\n", "t.csv", "t.csv:2"),
        ("arrival_s,input_tokens,output_tokens\n0,0,1\n", "t.csv", "0 input and 1 output tokens"),
        ("arrival_s,input_tokens,output_tokens\n", "t.csv", "no arrivals"),
        ('{"timestamp": 1}\n', "t.jsonl", "t.jsonl:1"),
        ("[1, 2]\n", "t.jsonl", "t.jsonl:1"),
        ("5\n", "t.jsonl", "t.jsonl:1"),
        ("{nonsense\n", "t.jsonl", "t.jsonl:1: not JSON"),
    ],
)
def test_what_cannot_be_read_names_its_place(tmp_path: Path, text: str, name: str, said: str) -> None:
    with pytest.raises(UserError) as caught:
        trace.read(written(tmp_path, text, name))
    assert said in caught.value.message


def test_a_missing_file_is_the_users(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="No such file"):
        trace.read(tmp_path / "none.csv")


@pytest.mark.skipif(not SHARED.is_dir(), reason="the recorded traces are not beside this checkout")
def test_recorded_traces_are_read_whole() -> None:
    azure = trace.read(SHARED / "azure2023_conv.csv")
    assert len(azure) > 10_000
    assert (azure[0].input_tokens, azure[0].output_tokens) == (374, 44)
    mooncake = trace.read(SHARED / "mooncake_fast25_conversation.jsonl.gz", requests=50)
    assert mooncake[0].blocks == tuple(range(14))
    # A block stands for 512 tokens, the last one perhaps for fewer.
    assert all((len(row.blocks) - 1) * 512 < row.input_tokens <= len(row.blocks) * 512 for row in mooncake)
