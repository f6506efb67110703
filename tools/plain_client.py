"""A plain streaming client, as most load tools have one.

`plain_client.py aiohttp|httpx URL STREAMS ROUNDS TOKENS CORE`
Closed loop; each event is parsed as it comes and stamped after that. Prints one JSON object: CPU seconds and
per request its name (the prompt's first two words), when it was sent, its first and its last event.
For comparison only (`tools/bench_client.py`); run by whichever Python has the library.
"""

import asyncio
import json
import os
import sys
import time


async def with_aiohttp(url, bodies, keep):
    import aiohttp

    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(None)) as session:

        async def one(body):
            sent, stamps = time.monotonic(), []
            async with session.post(f"{url}/v1/completions", json=body) as answer:
                async for line in answer.content:
                    read(line, stamps)
            keep(body, sent, stamps)

        await asyncio.gather(*(user(share, one) for share in bodies))


async def with_httpx(url, bodies, keep):
    import httpx

    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    async with httpx.AsyncClient(limits=limits, timeout=300, trust_env=False) as session:

        async def one(body):
            sent, stamps = time.monotonic(), []
            async with session.stream("POST", f"{url}/v1/completions", json=body) as answer:
                async for line in answer.aiter_lines():
                    read(line.encode(), stamps)
            keep(body, sent, stamps)

        await asyncio.gather(*(user(share, one) for share in bodies))


async def user(share, one):
    for body in share:
        await one(body)


def read(line, stamps):
    if not line.startswith(b"data: ") or line.startswith(b"data: [DONE]"):
        return
    if json.loads(line[6:])["choices"]:
        stamps.append(time.monotonic())


def main():
    library, url, (streams, rounds, tokens, core) = sys.argv[1], sys.argv[2], map(int, sys.argv[3:7])
    os.sched_setaffinity(0, {core})
    records = []
    bodies = [
        [
            {
                "model": "plain:50:10",
                "prompt": f"{library}{streams} {user}x{turn} a b c d e f",
                "max_tokens": tokens,
                "stream": True,
                "stream_options": {"include_usage": True},
            }
            for turn in range(rounds)
        ]
        for user in range(streams)
    ]

    def keep(body, sent, stamps):
        records.append((" ".join(body["prompt"].split()[:2]), sent, stamps[0], stamps[-1], time.monotonic()))

    begun = time.process_time()
    asyncio.run({"aiohttp": with_aiohttp, "httpx": with_httpx}[library](url, bodies, keep))
    json.dump({"cpu_s": time.process_time() - begun, "records": records}, sys.stdout)


main()
