"""The server's life: it starts on a socket, and at a signal it ends what runs and lets the process end as usual."""

import asyncio
import signal
import socket

import uvicorn
from transformers.utils import logging

from .app import build_app
from .generation import StudentGenerationState

SECONDS_TO_FINISH = 5  # for requests that run when the signal comes; then they are told that the server stops
SECONDS_TO_STOP = 15  # then the connections are cut


class StudentServer(uvicorn.Server):
    """A uvicorn server that ends running generations before it cuts connections."""

    def __init__(self, config: uvicorn.Config, generation: StudentGenerationState):
        super().__init__(config)
        self.generation = generation

    async def shutdown(self, sockets=None):
        timer = asyncio.get_running_loop().call_later(SECONDS_TO_FINISH, self.generation.manager.stop)
        await super().shutdown(sockets)
        timer.cancel()


def serve(student, tokenizer, name: str, max_tokens: int, listener: socket.socket, log_level: str) -> None:
    """Answers requests until SIGTERM or SIGINT.

    Args:
        student, tokenizer, name, max_tokens: see [`build_app`].
        listener: a bound socket.
        log_level: a level of uvicorn's; transformers, which warns of every request, is quiet at "info".
    """
    logging.set_verbosity(logging.log_levels["error" if log_level == "info" else log_level])
    generation = StudentGenerationState()
    app = build_app(student, tokenizer, name, max_tokens, generation)
    config = uvicorn.Config(app, log_level=log_level, timeout_graceful_shutdown=SECONDS_TO_STOP)
    listener.listen()  # who reads the next line may connect at once
    host, port = listener.getsockname()[:2]
    print(f"{name} answers at http://{f'[{host}]' if ':' in host else host}:{port}/v1", flush=True)
    # uvicorn stops at a signal and then raises it again: this handler takes it, so that the process ends as usual.
    before = {number: signal.signal(number, lambda *_: None) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        StudentServer(config, generation).run(sockets=[listener])
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
