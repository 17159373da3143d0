"""Measures a completions server under load: tokens per second, time to the first token, and CPU time.

    smt-hf serve runs/demo/dmt --port 8000 &
    python scripts/benchmark_serving.py http://127.0.0.1:8000 runs/demo/dmt --pid $!

Works with any server of this interface. On a busy machine, tokens per second of the server's own CPU time (`--pid`, Linux) say more
than tokens per second of wall time; on one free core the two are the same. The same number of clients may be given several times.
Each client has its own connection and reads no more of the answers than it must, so that it costs little compared with the server.
"""

import argparse
import asyncio
import json
import os
import statistics
import time
from collections.abc import AsyncIterator
from pathlib import Path

PROMPT = "Once upon a time, there was a little girl who"


def cpu_seconds(pid: int | None) -> float:
    """CPU seconds that a process has used."""
    if pid is None:
        return float("nan")
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def post(url: str, path: str, body: dict) -> AsyncIterator[bytes]:
    """The lines of an answer, as they come."""
    host, _, port = url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port or 80), limit=1 << 26)
    content = json.dumps(body).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\nContent-Length: {len(content)}\r\n"
    )
    try:
        writer.write(head.encode() + b"Connection: close\r\n\r\n" + content)
        header = (await reader.readuntil(b"\r\n\r\n")).lower()
        if not header.startswith(b"http/1.1 200"):
            raise RuntimeError(f"{path} answers {header[:100]!r} {await reader.read(2000)!r}")
        rest = b""
        while True:
            if b"transfer-encoding: chunked" in header:
                size = int(await reader.readline(), 16)
                part = (await reader.readexactly(size + 2))[:size]
            else:
                part = await reader.read(1 << 16)
            *lines, rest = (rest + part).split(b"\n")
            for line in lines:
                yield line
            if not part:
                yield rest
                return
    finally:
        writer.close()


async def ask(options, prompt: str, num_tokens: int, seed: int) -> tuple[float, int]:
    """Seconds until the first text, and the number of tokens in the answer: all requested ones, if the server does not say."""
    began, first, tokens = time.perf_counter(), None, 0
    body = {"model": options.model, "prompt": prompt, "max_tokens": num_tokens, "temperature": 0.8, "seed": seed}
    body |= {"stream": True, "stream_options": {"include_usage": True}}
    async for line in post(options.url, "/v1/completions", body):
        if line.startswith(b"data: {") and (first is None or b'"usage"' in line):
            event = json.loads(line[6:])
            if first is None and event.get("choices") and event["choices"][0].get("text"):
                first = time.perf_counter() - began
            tokens = (event.get("usage") or {}).get("completion_tokens", tokens)
    return first if first is not None else float("nan"), tokens or num_tokens


async def load(options, num_clients: int, num_tokens: int) -> None:
    """Measures `num_clients` clients at once. Their prompts differ after a shared beginning."""
    used, began = cpu_seconds(options.pid), time.perf_counter()
    asks = [ask(options, f"{PROMPT} {n} {began}", num_tokens, n) for n in range(num_clients)]
    answers = await asyncio.gather(*asks)
    seconds, used = time.perf_counter() - began, cpu_seconds(options.pid) - used
    firsts, tokens = [first for first, _ in answers], sum(count for _, count in answers)
    print(
        f"| {num_clients} | {num_tokens} | {tokens / seconds:,.0f} | {tokens / used:,.0f} "
        f"| {1e3 * statistics.median(firsts):.0f} | {1e3 * max(firsts):.0f} |",
        flush=True,
    )


async def behind(options) -> None:
    """Measures a short request while a long prompt is read."""
    long = asyncio.create_task(ask(options, f"{time.time()} " + "word " * (options.long // 5), 2, 0))
    await asyncio.sleep(1)
    firsts = [(await ask(options, f"{PROMPT} {n}", 4, n))[0] for n in range(5)]
    if long.done():
        raise RuntimeError(f"the prompt of {options.long} characters was read within seconds: pass a larger --long")
    long.cancel()
    print(
        f"\nA short request behind a prompt of {options.long:,} characters: first token after "
        f"{1e3 * statistics.median(firsts):.0f} ms, {1e3 * max(firsts):.0f} ms at worst of five.",
        flush=True,
    )


async def answer(options, prompt: str, num_tokens: int, **more) -> dict:
    """A whole answer."""
    body = {"model": options.model, "prompt": prompt, "max_tokens": num_tokens, "temperature": 0.8, "seed": 1, **more}
    return json.loads(b"\n".join([line async for line in post(options.url, "/v1/completions", body)]))


async def chat_turns(options) -> None:
    """Measures the cost of early and late turns of a conversation, in the reading that is left to do."""
    text, costs, used = PROMPT, [], []
    for _ in range(options.turns):
        began, before = time.perf_counter(), cpu_seconds(options.pid)
        text += (await answer(options, text, 20))["choices"][0]["text"] + " And then?"
        costs.append(time.perf_counter() - began)
        used.append(cpu_seconds(options.pid) - before)
    early, late = statistics.median(costs[1:21]), statistics.median(costs[-20:])
    print(
        f"A conversation of {len(text):,} characters: turns 2 to 21 take {1e3 * early:.0f} ms (CPU {50 * sum(used[1:21]):.0f}), "
        f"the last twenty of {options.turns} {1e3 * late:.0f} ms (CPU {50 * sum(used[-20:]):.0f}).",
        flush=True,
    )


def resident_megabytes(pid: int) -> float:
    """Memory of a process (Linux)."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


async def sleeping(options) -> None:
    """Begins many conversations, and measures what the server needs to continue any of them."""
    before = resident_megabytes(options.pid)
    room = asyncio.Semaphore(64)

    async def turn(number: int, text: str) -> dict:
        async with room:
            return await answer(options, text, 8, logit_bias={options.end_id: -100} if options.end_id else {})

    texts = [f"{number}. {PROMPT}" for number in range(options.sleeping)]
    answers = await asyncio.gather(*(turn(number, text) for number, text in enumerate(texts)))
    megabytes = resident_megabytes(options.pid) - before
    texts = [text + each["choices"][0]["text"] + " And then?" for text, each in zip(texts, answers, strict=True)]
    some = range(0, options.sleeping, max(1, options.sleeping // 100))
    woken = await asyncio.gather(*(turn(number, texts[number]) for number in some))
    known = [each["usage"]["prompt_tokens_details"]["cached_tokens"] for each in woken]
    lengths = [each["usage"]["prompt_tokens"] for each in woken]
    print(
        f"{options.sleeping:,} conversations sleep in {megabytes:.0f} MB of the server's memory; of {len(woken)} that continue, "
        f"{sum(length - count <= 12 for length, count in zip(lengths, known, strict=True))} read only their new words.",
        flush=True,
    )


async def main() -> None:
    """Prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url")
    parser.add_argument("model")
    parser.add_argument("--pid", type=int, help="process id of the server, for its CPU time")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 32, 256])
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--long", type=int, default=100_000, help="characters of the long prompt; 0 leaves it out")
    parser.add_argument("--turns", type=int, default=200, help="turns of a conversation; 0 leaves it out")
    parser.add_argument("--sleeping", type=int, default=0, help="conversations to begin; needs --pid")
    parser.add_argument("--end_id", type=int, help="token that ends a text, which sleeping conversations do not use")
    options = parser.parse_args()
    if options.sleeping and options.pid is None:
        parser.error("--sleeping needs --pid")
    await ask(options, PROMPT, 64, 0)
    if options.clients:
        print("| clients | tokens each | tokens/s | tokens/s of its CPU time | first token, median ms | at worst ms |")
        print("| ---: | ---: | ---: | ---: | ---: | ---: |")
    for num_clients in options.clients:
        await load(options, num_clients, options.tokens * (4 if num_clients == 1 else 1))
    if options.long:
        await behind(options)
    if options.turns:
        await chat_turns(options)
    if options.sleeping:
        await sleeping(options)


if __name__ == "__main__":
    asyncio.run(main())
