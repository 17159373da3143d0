"""Requests in progress: from the event loop to the engine's thread and back."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable

from starlette.responses import Response

from ..inference import Engine, Piece, Request, Ticket


class Running:
    """The tickets of one HTTP request, and their pieces as they come.

    Args:
        engine: an engine with its own thread, and [`deliver`] as its `deliver`.
        requests: one request for each prompt.
        stream: send pieces while answers are written, not only at their ends.

    Raises:
        InputError, EngineFull, EngineStopped: see [`Engine.submit`]; none of the requests is then left in the engine.
    """

    def __init__(self, engine: Engine, requests: list[Request], stream: bool):
        self.loop = asyncio.get_running_loop()
        self.queue: asyncio.Queue[tuple[Ticket, Piece] | None] = asyncio.Queue()
        self.tickets: list[Ticket] = []
        self.client_left = False
        try:
            for request in requests:
                self.tickets.append(engine.submit(request, self.take, stream=stream))
        except Exception:
            self.cancel()
            raise

    def take(self, ticket: Ticket, piece: Piece) -> None:
        """Queues a piece. Runs on the event loop."""
        self.queue.put_nowait((ticket, piece))

    def cancel(self) -> None:
        """Cancels whatever is not finished yet."""
        for ticket in self.tickets:
            ticket.cancel()

    async def pieces(self, receive) -> AsyncIterator[list[tuple[int, Piece]]]:
        """Yields the pieces with the number of their prompt, all available ones together. Ends early if the client leaves.

        Args:
            receive: ASGI's `receive`, after the body.
        """
        watch = asyncio.create_task(self._watch(receive))
        left = sum(len(ticket.answers) for ticket in self.tickets)
        places = {id(ticket): number for number, ticket in enumerate(self.tickets)}
        try:
            while left:
                come = [await self.queue.get()]
                while not self.queue.empty():
                    come.append(self.queue.get_nowait())
                if None in come:
                    return
                left -= sum(piece.finish_reason is not None for _, piece in come)
                yield [(places[id(ticket)], piece) for ticket, piece in come]
        finally:
            watch.cancel()
            self.cancel()

    async def _watch(self, receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self.client_left = True
        self.cancel()
        self.queue.put_nowait(None)


def deliver(pieces: list[tuple[Ticket, Piece]]) -> None:
    """Passes pieces to the event loops that wait for them, waking each loop once. For `Engine(deliver=...)`."""
    by_loop: dict[asyncio.AbstractEventLoop, list] = {}
    for ticket, piece in pieces:
        by_loop.setdefault(ticket.on_piece.__self__.loop, []).append((ticket, piece))  # type: ignore[attr-defined]
    for loop, some in by_loop.items():
        try:
            loop.call_soon_threadsafe(_spread, some)
        except RuntimeError:  # the loop is closed: nobody is waiting there any more
            for ticket, _ in some:
                ticket.cancel()


def _spread(pieces: list[tuple[Ticket, Piece]]) -> None:
    for ticket, piece in pieces:
        ticket.on_piece(ticket, piece)


class EventStream(Response):
    """A response that sends server-sent events as they come.

    Args:
        events: generates the events, given ASGI's `receive`.
    """

    media_type = "text/event-stream"

    def __init__(self, events: Callable[[Callable], AsyncGenerator[bytes, None]]):
        self.events, self.status_code, self.background = events, 200, None
        self.init_headers({"Cache-Control": "no-cache", "X-Accel-Buffering": "no"})

    async def __call__(self, scope, receive, send) -> None:
        """Sends the events."""
        headers = [header for header in self.raw_headers if header[0] != b"content-length"]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        events = self.events(receive)
        try:
            async for data in events:
                await send({"type": "http.response.body", "body": data, "more_body": True})
        finally:
            await events.aclose()
        await send({"type": "http.response.body", "body": b"", "more_body": False})
