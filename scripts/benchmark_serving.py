"""How a completions server bears load: tokens a second, time to the first token, and what it costs in CPU time.

    smt-hf serve runs/demo/dmt --port 8000 &
    python scripts/benchmark_serving.py http://127.0.0.1:8000 runs/demo/dmt --pid $!

Works with any server of this interface. On a machine that has other things to do, tokens a second of the server's own CPU time
(`--pid`, Linux) say more than those of the clock: on one free core the two are the same.
"""

import argparse
import asyncio
import json
import os
import statistics
import time
from pathlib import Path

import httpx

PROMPT = "Once upon a time, there was a little girl who"


def cpu_seconds(pid: int | None) -> float:
    """Seconds of CPU time that a process has used."""
    if pid is None:
        return float("nan")
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def ask(client: httpx.AsyncClient, model: str, prompt: str, num_tokens: int, seed: int) -> tuple[float, int]:
    """Seconds until the first text, and tokens of the answer: all that were asked for, if the server does not say."""
    began, first, tokens = time.perf_counter(), None, 0
    body = {
        "model": model,
        "prompt": prompt,
        "max_tokens": num_tokens,
        "temperature": 0.8,
        "seed": seed,
        "stream": True,
    }
    body["stream_options"] = {"include_usage": True}
    async with client.stream("POST", "/v1/completions", json=body) as answer:
        async for line in answer.aiter_lines():
            if line.startswith("data: {"):
                event = json.loads(line[6:])
                if first is None and event.get("choices") and event["choices"][0].get("text"):
                    first = time.perf_counter() - began
                tokens = (event.get("usage") or {}).get("completion_tokens", tokens)
    return first if first is not None else float("nan"), tokens or num_tokens


async def load(client, options, num_clients: int, num_tokens: int) -> None:
    """Measures so many clients at once, whose prompts differ after a beginning that all share."""
    used, began = cpu_seconds(options.pid), time.perf_counter()
    asks = [ask(client, options.model, f"{PROMPT} {n} {began}", num_tokens, n) for n in range(num_clients)]
    answers = await asyncio.gather(*asks)
    seconds, used = time.perf_counter() - began, cpu_seconds(options.pid) - used
    firsts, tokens = [first for first, _ in answers], sum(count for _, count in answers)
    print(
        f"| {num_clients} | {num_tokens} | {tokens / seconds:,.0f} | {tokens / used:,.0f} "
        f"| {1e3 * statistics.median(firsts):.0f} | {1e3 * max(firsts):.0f} |",
        flush=True,
    )


async def behind(client, options) -> None:
    """Measures a short request while a long prompt is read."""
    long = asyncio.create_task(ask(client, options.model, f"{time.time()} " + "word " * (options.long // 5), 2, 0))
    await asyncio.sleep(1)
    first, _ = await ask(client, options.model, PROMPT, 4, 1)
    print(f"\nA short request behind a prompt of {options.long:,} characters: first token after {1e3 * first:.0f} ms.")
    long.cancel()


async def chat_turns(client, options) -> None:
    """Measures what a conversation costs late and early, in the reading that is left to do."""
    text, costs = PROMPT, []
    for _ in range(options.turns):
        body = {"model": options.model, "prompt": text, "max_tokens": 20, "temperature": 0.8, "seed": 1}
        began = time.perf_counter()
        answer = (await client.post("/v1/completions", json=body)).json()
        costs.append(time.perf_counter() - began)
        text += answer["choices"][0]["text"] + " And then?"
    early, late = statistics.median(costs[1:11]), statistics.median(costs[-10:])
    print(
        f"A conversation: turns 2 to 11 take {1e3 * early:.0f} ms, the last ten of {options.turns} {1e3 * late:.0f} ms."
    )


async def main() -> None:
    """Prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url")
    parser.add_argument("model")
    parser.add_argument("--pid", type=int, help="process of the server, for its CPU time")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 32, 256])
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--long", type=int, default=100_000, help="characters of the long prompt; 0 leaves it out")
    parser.add_argument("--turns", type=int, default=200, help="of a conversation; 0 leaves it out")
    options = parser.parse_args()
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=options.url, timeout=600, limits=limits) as client:
        await ask(client, options.model, PROMPT, 64, 0)
        print("| clients | tokens each | tokens/s | tokens/s of its CPU time | first token, median ms | at worst ms |")
        print("| ---: | ---: | ---: | ---: | ---: | ---: |")
        for num_clients in options.clients:
            await load(client, options, num_clients, options.tokens * (4 if num_clients == 1 else 1))
        if options.long:
            await behind(client, options)
        if options.turns:
            await chat_turns(client, options)


if __name__ == "__main__":
    asyncio.run(main())
