"""Tests a server with clients that leave, stall, send nonsense and hang up in the middle of a body.

    smt-hf serve runs/demo/dmt --port 8000 2> serve.log &
    python scripts/soak_serving.py http://127.0.0.1:8000 runs/demo/dmt --pid $! --log serve.log --seconds 600

Exits with 1 if any answer has status 500, if a complete answer differs from what the server writes without other clients, if the log
contains a traceback, or if the server's memory has grown by more than a tenth after the first quarter of the time.
"""

import argparse
import asyncio
import json
import random
import sys
import time
from collections import Counter
from pathlib import Path

import httpx

PROMPTS = ["Once upon a time", "Tom found a red plane.", "é", "The end", "word " * 200, "a"]
NONSENSE = [
    b"{",
    b"[]",
    b"\xff\xfe\x00",
    b'{"prompt": 5}',
    b'{"prompt": "x", "temperature": NaN}',
    b'{"prompt": "x", "logit_bias": {"x": 1}}',
    b'{"prompt": "x", "max_tokens": 1e99}',
    b'{"prompt": "a\\ud800b", "max_tokens": 2}',
    b'{"prompt": [[1], ["x"]]}',
    b'{"prompt": "x", "a": ' + b"[" * 50_000 + b"]" * 50_000 + b"}",
]


def resident_bytes(pid: int) -> int:
    """Resident memory of a process (Linux)."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096


class Soak:
    """The clients, and what they have observed."""

    def __init__(self, options):
        self.options, self.random = options, random.Random(options.seed)
        self.seen, self.wrong, self.expected = Counter(), [], {}
        self.host, _, self.port = options.url.removeprefix("http://").partition(":")
        self.client = httpx.AsyncClient(base_url=options.url, timeout=300, limits=httpx.Limits(max_connections=None))

    def body(self, prompt: str, **more) -> dict:
        return {"model": self.options.model, "prompt": prompt, "max_tokens": 40, "temperature": 0, **more}

    async def whole(self) -> None:
        """Waits for a whole answer."""
        prompt = self.random.choice(PROMPTS)
        answer = await self.client.post("/v1/completions", json=self.body(prompt))
        self.note(answer.status_code)
        if answer.status_code == 200 and answer.json()["choices"][0]["text"] != self.expected[prompt]:
            self.wrong.append(f"a different answer to {prompt[:20]!r}")

    async def streamed(self, leaves: bool = False, pause: float = 0.0) -> None:
        """Reads a stream to its end, leaves, or stalls in between."""
        prompt, text = self.random.choice(PROMPTS), ""
        length = 2000 if leaves else 40
        async with self.client.stream(
            "POST", "/v1/completions", json=self.body(prompt, stream=True, max_tokens=length)
        ) as answer:
            self.note(answer.status_code)
            async for line in answer.aiter_lines():
                if line.startswith("data: {"):
                    event = json.loads(line[6:])
                    if "error" in event:
                        self.wrong.append(event["error"]["message"])
                        return
                    text += event["choices"][0]["text"]
                await asyncio.sleep(pause)
                if leaves and self.random.random() < 0.3:
                    return
        if answer.status_code == 200 and not leaves and text != self.expected[prompt]:
            self.wrong.append(f"a different stream to {prompt[:20]!r}")

    async def nonsense(self) -> None:
        """Sends something that is not a request."""
        headers = {"content-type": "application/json"}
        path = self.random.choice(["/v1/completions", "/v1/chat/completions", "/nowhere"])
        answer = await self.client.post(path, content=self.random.choice(NONSENSE), headers=headers)
        self.note(answer.status_code)

    async def hangs_up(self) -> None:
        """Leaves in the middle of a body, or while a long prompt is read."""
        reader, writer = await asyncio.open_connection(self.host, int(self.port))
        body = json.dumps(self.body("word " * 4000)).encode()
        head = f"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body[: self.random.choice([0, 10, len(body) // 2, len(body)])])
        await writer.drain()
        await asyncio.sleep(self.random.random())
        writer.close()
        self.seen["hung up"] += 1

    def note(self, status: int) -> None:
        self.seen[status] += 1
        if status >= 500:
            self.wrong.append(f"status {status}")

    async def visitor(self, until: float) -> None:
        """Acts as one client after another."""
        while time.monotonic() < until:
            kinds = [self.whole, self.streamed, self.nonsense, self.hangs_up]
            kinds += [lambda: self.streamed(leaves=True), lambda: self.streamed(pause=0.2)]
            try:
                await self.random.choice(kinds)()
            except (httpx.TransportError, OSError) as error:
                self.wrong.append(f"{type(error).__name__}: {error}")

    async def run(self) -> int:
        """Runs the clients, reports, and returns the exit code."""
        for prompt in PROMPTS:
            answer = await self.client.post("/v1/completions", json=self.body(prompt))
            self.expected[prompt] = answer.json()["choices"][0]["text"]
        began, sizes = time.monotonic(), []
        visitors = [
            asyncio.create_task(self.visitor(began + self.options.seconds)) for _ in range(self.options.clients)
        ]
        while not all(visitor.done() for visitor in visitors):
            await asyncio.sleep(min(5.0, self.options.seconds / 20))
            if self.options.pid:
                sizes.append(resident_bytes(self.options.pid))
        if sizes:
            early, late = max(sizes[: max(1, len(sizes) // 4)]), sizes[-1]
            print(f"resident memory: {early / 1e6:.0f} MB after a quarter, {late / 1e6:.0f} MB at the end")
            if late > 1.1 * early:
                self.wrong.append(f"memory grew from {early} to {late} bytes")
        if self.options.log and "Traceback" in Path(self.options.log).read_text():
            self.wrong.append(f"a traceback in {self.options.log}")
        print("seen:", dict(sorted(self.seen.items(), key=str)))
        for fault, count in Counter(self.wrong).most_common(10):
            print(f"WRONG {count} times: {fault}")
        return int(bool(self.wrong))


def main() -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url")
    parser.add_argument("model")
    parser.add_argument("--pid", type=int, help="process id of the server, for its memory")
    parser.add_argument("--log", help="file with the server's output")
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--clients", type=int, default=24)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    sys.exit(asyncio.run(Soak(options).run()))


if __name__ == "__main__":
    main()
