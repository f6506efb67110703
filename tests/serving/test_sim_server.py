"""The simulated server over HTTP: the surface of vLLM's OpenAI server, and times that follow the roofline."""

from __future__ import annotations

import json
import re
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from serving.config import ServingConfig
from serving.costmodel import hardware, shapes
from serving.costmodel.defaults import resolve
from serving.costmodel.roofline import costs, decode_time_s
from serving.sim.engine import Sim
from tests.support.sim_process import MODEL, Started, started


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Started]:
    with started(tmp_path_factory.mktemp("sim"), quantization="fp8") as running:
        yield running


def value(server: Started, name: str) -> float:
    found = re.search(rf"^{re.escape(name)}\{{[^}}]*\}} (\S+)$", server.get("/metrics").text, re.MULTILINE)
    assert found, name
    return float(found[1])


def test_it_says_that_it_is_simulated(server: Started) -> None:
    assert server.get("/version").json()["simulated"] is True
    assert "SIMULATED" in server.log.splitlines()[0]
    assert server.get("/server_info").json()["simulated"] is True
    assert 'simulated="True"' in server.get("/metrics").text


def test_the_model_is_listed_under_the_name_that_requests_carry(server: Started) -> None:
    [card] = server.get("/v1/models").json()["data"]
    assert card["id"] == MODEL
    assert card["max_model_len"] == 2048


def test_a_completion_counts_words(server: Started) -> None:
    answer = server.complete("one two  three\nfour", 5).json()
    assert answer["usage"]["prompt_tokens"] == 4
    assert answer["usage"]["completion_tokens"] == 5
    [choice] = answer["choices"]
    assert len(choice["text"].split()) == 5
    assert choice["finish_reason"] == "length"


def test_token_ids_are_counted_as_they_are(server: Started) -> None:
    assert server.complete([5, 6, 7], 2).json()["usage"]["prompt_tokens"] == 3


def test_several_prompts_are_several_choices(server: Started) -> None:
    answer = server.complete(["a b", "c d e"], 3).json()
    assert [c["index"] for c in answer["choices"]] == [0, 1]
    assert answer["usage"] == {"prompt_tokens": 5, "total_tokens": 11, "completion_tokens": 6,
                               "prompt_tokens_details": {"cached_tokens": 0}}  # fmt: skip


def test_the_same_prompt_is_answered_the_same_and_another_is_not(server: Started) -> None:
    one, two, other = (server.complete(p, 8).json()["choices"][0]["text"] for p in ("a b", "a b", "a c"))
    assert one == two != other


def test_a_stream_has_one_event_a_token_then_usage_then_the_end(server: Started) -> None:
    events = server.stream(
        prompt="a b c", max_tokens=4, ignore_eos=True, stream_options={"include_usage": True}
    )
    assert events[-1] == "[DONE]"
    *tokens, usage = [json.loads(event) for event in events[:-1]]
    assert [len(t["choices"][0]["text"].split()) for t in tokens] == [1, 1, 1, 1]
    assert [t["choices"][0]["finish_reason"] for t in tokens] == [None, None, None, "length"]
    assert usage["choices"] == []
    assert usage["usage"]["completion_tokens"] == 4
    whole = server.complete("a b c", 4).json()["choices"][0]["text"]
    assert "".join(t["choices"][0]["text"] for t in tokens) == whole


def test_usage_comes_with_every_event_when_asked(server: Started) -> None:
    options = {"include_usage": True, "continuous_usage_stats": True}
    events = server.stream(prompt="a b", max_tokens=3, ignore_eos=True, stream_options=options)
    counts = [json.loads(event)["usage"]["completion_tokens"] for event in events[:-1]]
    assert counts == [1, 2, 3, 3]


def test_no_usage_unless_asked(server: Started) -> None:
    events = server.stream(prompt="a b", max_tokens=2, ignore_eos=True)
    assert len(events) == 3
    assert all("usage" not in event for event in events)


def test_chat_streams_a_role_first_and_counts_its_template(server: Started) -> None:
    body = {"messages": [{"role": "user", "content": "hello there"}], "max_tokens": 3, "ignore_eos": True}
    events = server.stream("/v1/chat/completions", **body, stream_options={"include_usage": True})
    first, *tokens, usage = [json.loads(event) for event in events[:-1]]
    assert first["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert len(tokens) == 3
    assert usage["usage"]["prompt_tokens"] == 4, "two words, one marker before them, one for the answer"
    whole = server.post("/v1/chat/completions", **body).json()
    text = "".join(t["choices"][0]["delta"]["content"] for t in tokens)
    assert whole["choices"][0]["message"] == {"role": "assistant", "content": text}


def test_without_ignore_eos_answers_end_by_themselves(server: Started) -> None:
    with ThreadPoolExecutor(20) as pool:
        ask = lambda n: server.post("/v1/completions", prompt=f"question {n}", max_tokens=1500).json()  # noqa: E731
        answers = list(pool.map(ask, range(20)))
    lengths = [answer["usage"]["completion_tokens"] for answer in answers]
    assert len(set(lengths)) > 10
    assert min(lengths) < 200 < max(lengths)
    assert sum(a["choices"][0]["finish_reason"] == "stop" for a in answers) >= 18


def test_min_tokens_and_stop(server: Started) -> None:
    answer = server.post("/v1/completions", prompt="question 1", max_tokens=900, min_tokens=900).json()
    assert answer["usage"]["completion_tokens"] == 900
    words = answer["choices"][0]["text"].split()
    cut = server.complete("question 1", 900, stop=[words[5]]).json()["choices"][0]
    assert cut["finish_reason"] == "stop"
    assert words[5] not in cut["text"]
    assert cut["text"].split() == words[: words.index(words[5])]


def test_echo_gives_log_probabilities_of_the_prompt(server: Started) -> None:
    ask = {"prompt": "the cat sat", "max_tokens": 0, "echo": True, "logprobs": 1}
    [choice] = server.post("/v1/completions", **ask).json()["choices"]
    logprobs = choice["logprobs"]
    assert choice["text"].split() == ["the", "cat", "sat"]
    assert logprobs["token_logprobs"][0] is None
    assert all(lp < 0 for lp in logprobs["token_logprobs"][1:])
    assert len(logprobs["tokens"]) == len(logprobs["text_offset"]) == len(logprobs["top_logprobs"]) == 3
    assert server.post("/v1/completions", **ask).json()["choices"][0]["logprobs"] == logprobs


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        ({"model": "other", "prompt": "a"}, 404, "does not exist"),
        ({"prompt": "a", "max_tokens": 5000}, 400, "maximum context length is 2048"),
        ({"prompt": "a", "max_tokens": 0}, 400, "at least 1"),
        ({"prompt": "a", "max_tokens": "9"}, 400, "max_tokens"),
        ({"prompt": ""}, 400, "empty"),
        ({"prompt": {"a": 1}}, 400, "prompt must be"),
        ({}, 400, "prompt must be"),
        ({"prompt": "a", "n": 2}, 400, "n must be 1"),
        ({"prompt": "a", "stop": [1]}, 400, "stop"),
        ({"prompt": "a", "stream_options": 3}, 400, "stream_options"),
    ],
)
def test_a_bad_request_is_refused_with_its_reason(
    server: Started, body: dict[str, object], status: int, says: str
) -> None:
    answer = server.post("/v1/completions", **body)
    assert answer.status_code == status
    assert says in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (b"GET /nowhere HTTP/1.1\r\n\r\n", b"404"),
        (b"PUT /health HTTP/1.1\r\n\r\n", b"405"),
        (b"nonsense\r\n\r\n", b"400"),
        (b"POST /v1/completions HTTP/1.1\r\nContent-Length: x\r\n\r\n", b"400"),
        (b"POST /v1/completions HTTP/1.1\r\nContent-Length: 1\r\n\r\n{", b"400"),
        (b"POST /v1/completions HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", b"411"),
        (b"POST /v1/completions HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\n", b"413"),
        (b"GET /" + b"x" * 70_000, b"431"),
    ],
)
def test_hostile_bytes_get_a_status(server: Started, raw: bytes, status: bytes) -> None:
    address = ("127.0.0.1", int(server.url.rsplit(":", 1)[1]))
    with socket.create_connection(address, timeout=5) as client:
        client.sendall(raw)
        assert client.recv(4096).startswith(b"HTTP/1.1 " + status)
    assert server.get("/health").status_code == 200


def test_a_connection_is_kept_and_takes_pipelined_requests(server: Started) -> None:
    address = ("127.0.0.1", int(server.url.rsplit(":", 1)[1]))
    with socket.create_connection(address, timeout=5) as client:
        client.sendall(b"GET /health HTTP/1.1\r\n\r\n" * 3)
        got = b""
        while got.count(b"200 OK") < 3 and (more := client.recv(4096)):
            got += more
        assert got.count(b"200 OK") == 3, got


def test_metrics_read_as_vllms(server: Started) -> None:
    before = value(server, "vllm:generation_tokens_total")
    server.complete("a b c", 7)
    assert value(server, "vllm:generation_tokens_total") == before + 7
    families = {f.name: f for f in text_string_to_metric_families(server.get("/metrics").text)}
    for name in ("num_requests_running", "num_requests_waiting", "kv_cache_usage_perc", "cache_config_info"):
        assert families[f"vllm:{name}"].type == "gauge"
    for name in ("prefix_cache_queries", "prefix_cache_hits", "num_preemptions", "prompt_tokens"):
        assert families[f"vllm:{name}"].type == "counter"
    for name in ("time_to_first_token", "inter_token_latency", "e2e_request_latency", "request_queue_time"):
        family = families[f"vllm:{name}_seconds"]
        assert family.type == "histogram"
        buckets = [s.value for s in family.samples if s.name.endswith("_bucket")]
        assert buckets == sorted(buckets)
        assert buckets[-1] == next(s.value for s in family.samples if s.name.endswith("_count"))


def test_metrics_by_name_leave_the_rest_out(server: Started) -> None:
    text = server.get("/metrics/?name[]=vllm:num_requests_running&name[]=vllm:kv_cache_usage_perc").text
    samples = [line for line in text.splitlines() if not line.startswith("#")]
    assert len(samples) == 2


def test_the_prefix_cache_hits_and_can_be_emptied(server: Started) -> None:
    prompt = " ".join(f"word{n}" for n in range(200))
    assert server.post("/reset_prefix_cache").status_code == 200
    details = [server.complete(prompt, 2).json()["usage"]["prompt_tokens_details"] for _ in range(2)]
    assert [d["cached_tokens"] for d in details] == [0, 192]
    assert Sim().reset_prefix_cache(server.url)
    again = server.complete(prompt, 2).json()["usage"]["prompt_tokens_details"]
    assert again["cached_tokens"] == 0
    hits = value(server, "vllm:prefix_cache_hits_total")
    assert hits >= 192


def test_the_engine_reads_back_what_is_in_force(server: Started) -> None:
    config = ServingConfig(
        engine="sim", model=MODEL, quantization="fp8", max_model_len=2048, sim={"shape": MODEL}
    )
    effective = Sim().effective(server.url, config, server.log)
    assert effective["simulated"] is True
    assert effective["quantization"] == "fp8"
    assert effective["max_model_len"] == 2048
    assert effective["quantized_layers"] == 32 * 7
    printed = re.search(r"GPU KV cache size: ([\d,]+) tokens", server.log)
    assert printed
    assert int(printed[1].replace(",", "")) == effective["kv_cache_tokens"]
    assert Sim().without_effect(config, effective, server.log) == {}


def test_a_client_that_gives_up_waiting_frees_its_place(server: Started) -> None:
    with pytest.raises(httpx.ReadTimeout):
        server.client.post(
            f"{server.url}/v1/completions",
            json={"prompt": "a b", "max_tokens": 2000, "ignore_eos": True},
            timeout=0.3,
        )
    deadline = time.monotonic() + 2
    while value(server, "vllm:num_requests_running"):
        assert time.monotonic() < deadline, "the whole answer would take 5 s"
        time.sleep(0.02)


def test_a_client_that_leaves_a_stream_frees_its_place(server: Started) -> None:
    before = value(server, "vllm:num_requests_running")
    body = {"model": MODEL, "prompt": "a b", "max_tokens": 2000, "ignore_eos": True, "stream": True}
    with httpx.stream("POST", f"{server.url}/v1/completions", json=body, trust_env=False) as answer:
        lines = answer.iter_lines()
        next(lines)
        assert value(server, "vllm:num_requests_running") == before + 1
    deadline = time.monotonic() + 5
    while value(server, "vllm:num_requests_running") > before:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert value(server, "vllm:kv_cache_usage_perc") == 0


def test_quantization_changes_some_of_the_output_and_its_likelihood(tmp_path: Path, server: Started) -> None:
    prompts = [f"prompt number {n}" for n in range(20)]
    ask = {"max_tokens": 100, "ignore_eos": True, "logprobs": 0}

    def answers(of: Started) -> tuple[list[str], float]:
        choices = of.post("/v1/completions", prompt=prompts, **ask).json()["choices"]
        words = [word for choice in choices for word in choice["text"].split()]
        echo = of.post("/v1/completions", prompt=prompts, max_tokens=0, echo=True, logprobs=0).json()[
            "choices"
        ]
        return words, sum(sum(c["logprobs"]["token_logprobs"][1:]) for c in echo)

    with started(tmp_path) as plain:
        exact, likely = answers(plain)
    rough, unlikely = answers(server)
    changed = sum(a != b for a, b in zip(exact, rough, strict=True)) / len(exact)
    assert 0.004 < changed < 0.03, "fp8 changes about 1.2% of the tokens"
    assert unlikely < likely


def test_steps_take_the_time_that_the_roofline_says(tmp_path: Path) -> None:
    """Mean over many steps, so that one late wake-up of a busy machine does not matter."""
    with started(tmp_path, sim={"gpu": "l4"}, quantization="fp8") as slow:
        slow.complete("a b c", 60)
        mean = value(slow, "vllm:inter_token_latency_seconds_sum") / 59
        device, shape = hardware.HARDWARE["l4"], shapes.SHAPES[MODEL]
        cost = costs(resolve({"quantization": "fp8", "max_model_len": 2048}, device, shape), device, shape)
        assert mean == pytest.approx(decode_time_s(cost, 1, 33), rel=0.03)


def test_time_can_be_scaled(tmp_path: Path) -> None:
    with started(tmp_path, sim={"gpu": "l4", "time_scale": 0.1}) as fast:
        begun = time.monotonic()
        fast.complete("a b c", 100)
        assert time.monotonic() - begun < 3, "5.9 s at full length"
        mean = value(fast, "vllm:inter_token_latency_seconds_sum") / 99
        assert 0.004 < mean < 0.02


def test_batching_is_worth_it(server: Started) -> None:
    def wall_s(users: int) -> float:
        begun = time.monotonic()
        with ThreadPoolExecutor(users) as pool:
            list(pool.map(lambda n: server.complete(f"user {n}", 120), range(users)))
        return time.monotonic() - begun

    assert statistics.median(wall_s(8) for _ in range(3)) < 4 * statistics.median(wall_s(1) for _ in range(3))


def test_a_tokenizer_counts_when_there_is_one(tmp_path: Path) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    alphabet = {"Ġ": 0, "Ġblue": 1, "Ġgreen": 2, "a": 3, "Ġred": 4}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(alphabet, unk_token="a"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    with started(tmp_path, tokenizer=str(tmp_path)) as running:
        answer = running.complete("blue green don't", 6).json()
        assert answer["usage"]["prompt_tokens"] == len(tokenizer.encode("blue green don't").ids) == 4
        text = answer["choices"][0]["text"]
        assert len(tokenizer.encode(text, add_special_tokens=False).ids) == 6
        assert running.get("/server_info").json()["words_are_tokens"] is False


def test_it_starts_light() -> None:
    code = (
        "import sys, serving.sim.server; "
        "heavy = {'pydantic', 'torch', 'tokenizers', 'numpy', 'httpx', 'yaml', 'rich'}; "
        "print(*sorted(heavy & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert run.stdout.split() == []


def test_restarts_differ_by_the_name_of_their_folder(tmp_path: Path) -> None:
    def factor(name: str, noise: float) -> float:
        folder = tmp_path / name / "cwd"
        folder.mkdir(parents=True, exist_ok=True)
        with started(folder, sim={"noise": noise}) as running:
            return float(running.get("/server_info").json()["launch_factor"])

    assert factor("001-a", 0.05) == factor("001-a", 0.05) != factor("002-a", 0.05)
    assert factor("001-a", 0.0) == 1.0


def test_it_ends_when_told(tmp_path: Path) -> None:
    with started(tmp_path) as running:
        running.process.terminate()
        assert running.process.wait(timeout=5) == 0
        assert "Shutting down" in running.log
