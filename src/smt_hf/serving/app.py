"""The application: its routes and their answers."""

import asyncio
import secrets
import time
from collections.abc import AsyncGenerator, Sequence

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response

from ..errors import InputError
from ..inference import Engine, EngineFull, EngineStopped, Request
from .answers import DONE, ChatForm, Form, event
from .errors import ApiError, as_api_error, ended_early
from .guards import Guard
from .memories import MemoryField
from .metrics import Metrics
from .requests import Asked, Limits, parse_chat, parse_completion, parse_json
from .running import EventStream, Running

LARGE_BODY = 1 << 16  # larger bodies (in bytes) are parsed and encoded outside the event loop


class Api:
    """The endpoints that generate text.

    Args:
        engine, tokenizer, name, limits, memories: see [`build_app`].
    """

    def __init__(self, engine: Engine, tokenizer, name: str, limits: Limits, memories: MemoryField):
        self.engine, self.tokenizer, self.name, self.limits = engine, tokenizer, name, limits
        self.memories = memories
        self.metrics = Metrics(engine)

    async def answer(self, http: HttpRequest, parse, form_class: type[Form]) -> Response:
        """Answers a completion or a chat."""
        body = await http.body()
        if len(body) > LARGE_BODY:
            asked = await asyncio.to_thread(self._understand, body, parse)
        else:
            asked = self._understand(body, parse)
        start, num_before = None, 0
        if asked.memory is not None:
            start, num_before = self.memories.read(asked.memory)
        requests = [
            Request(
                prompt,
                asked.params,
                memory=start,
                prompt_logprobs=asked.echo and asked.params.logprobs is not None,
                keep_memory=asked.return_memory,
                use_teacher=asked.use_teacher,
                timeout=self.limits.timeout,
            )
            for prompt in asked.prompts
        ]
        form = form_class(self.name, self.tokenizer, len(requests), asked.params.n)
        running = Running(self.engine, requests, asked.stream)
        if asked.stream:
            return EventStream(lambda receive: self._events(running, asked, form, num_before, receive))
        return await self._whole(running, asked, form, num_before, http)

    def _understand(self, body: bytes, parse) -> Asked:
        return parse(parse_json(body), self.name, self.tokenizer, self.limits)

    async def _whole(self, running: Running, asked: Asked, form: Form, num_before: int, http: HttpRequest) -> Response:
        began = time.perf_counter()
        async for _ in running.pieces(http.receive):
            pass
        if running.client_left:
            return Response(status_code=499)
        self.metrics.whole.observe(time.perf_counter() - began)
        memories = []
        for ticket in running.tickets:
            for answer in ticket.answers:
                error = ended_early(answer.finish_reason, answer.error, not self.engine.is_alive)
                if error is not None:
                    raise error
                if asked.return_memory:
                    memories.append(self._memory(ticket, answer, num_before))
        return JSONResponse(form.whole(running.tickets, asked.texts if asked.echo else (), memories))

    async def _events(
        self, running: Running, asked: Asked, form: Form, num_before: int, receive
    ) -> AsyncGenerator[bytes, None]:
        began, waits, n = time.perf_counter(), True, asked.params.n
        begun: set[int] = set()
        async for pieces in running.pieces(receive):
            if waits:
                self.metrics.first.observe(time.perf_counter() - began)
                waits = False
            out = []
            for number, piece in pieces:
                ticket, place = running.tickets[number], number * n + piece.index
                if place not in begun:
                    begun.add(place)
                    first = form.first(place, asked.texts[number] if asked.echo else "", ticket.prompt_logprobs)
                    out += [] if first is None else [event(first)]
                error = ended_early(piece.finish_reason, piece.error, not self.engine.is_alive)
                if error is not None:
                    yield b"".join(out) + event(error.content) + DONE
                    return
                memory = None
                if piece.finish_reason is not None and asked.return_memory:
                    memory = self._memory(ticket, ticket.answers[piece.index], num_before)
                if piece.text or piece.logprobs or piece.finish_reason is not None:
                    out.append(event(form.piece(place, piece, memory)))
            if out:
                yield b"".join(out)
        if running.client_left:
            return
        self.metrics.whole.observe(time.perf_counter() - began)
        yield (event(form.last(running.tickets)) if asked.include_usage else b"") + DONE

    def _memory(self, ticket, answer, num_before: int) -> str:
        return self.memories.write(answer.memory, num_before + len(ticket.request.prompt_ids) + len(answer.ids))


def build_app(
    engine: Engine,
    tokenizer,
    name: str,
    limits: Limits | None = None,
    memory_key: bytes | None = None,
    owner: str = "",
    hosts: Sequence[str] = (),
    cors_origins: Sequence[str] = (),
    api_key: str | None = None,
    max_body_bytes: int = 8 << 20,
) -> FastAPI:
    """Builds the application for one student.

    Args:
        engine: a started engine, whose `deliver` is [`smt_hf.serving.running.deliver`].
        tokenizer: the student's fast tokenizer.
        name: the model's name in requests.
        limits: limits on requests.
        memory_key: the key that signs the memories in requests, see [`MemoryField`]; a random one when `None`.
        owner: the fingerprint of the student.
        hosts, cors_origins, api_key, max_body_bytes: see [`Guard`].
    """
    shape = tuple(engine.backend.initial_memory.shape)
    memories = MemoryField(memory_key or secrets.token_bytes(32), owner, shape)
    api = Api(engine, tokenizer, name, limits or Limits(), memories)
    app = FastAPI(title="smt-hf serve", docs_url=None, redoc_url=None, openapi_url=None)
    app.state.api = api
    app.add_middleware(_Counted, metrics=api.metrics)
    app.add_middleware(Guard, hosts=hosts, cors_origins=cors_origins, api_key=api_key, max_body_bytes=max_body_bytes)
    for kind in (ApiError, InputError, EngineFull, EngineStopped, Exception):
        app.add_exception_handler(kind, _answer_error)
    app.add_exception_handler(HTTPException, _answer_http_error)
    model = {"id": name, "object": "model", "created": int(time.time()), "owned_by": "smt-hf"}

    @app.post("/v1/completions")
    async def complete(request: HttpRequest):
        return await api.answer(request, parse_completion, Form)

    @app.post("/v1/chat/completions")
    async def chat(request: HttpRequest):
        return await api.answer(request, parse_chat, ChatForm)

    @app.api_route("/v1/models", methods=["GET", "HEAD"])
    async def models():
        return JSONResponse({"object": "list", "data": [model]})

    @app.api_route("/v1/models/{model_id:path}", methods=["GET", "HEAD"])
    async def one_model(model_id: str):
        if model_id != name:
            raise ApiError(
                404, f"there is no model {model_id[:100]!r} here: ask for {name!r}", "model_not_found", "model"
            )
        return JSONResponse(model)

    @app.api_route("/health", methods=["GET", "HEAD"])
    async def health():
        alive = engine.is_alive
        return JSONResponse({"status": "ok" if alive else "stopping"}, status_code=200 if alive else 503)

    @app.api_route("/metrics", methods=["GET", "HEAD"])
    async def metrics():
        return Response(api.metrics.text(), media_type="text/plain; version=0.0.4")

    return app


class _Counted:
    """ASGI middleware that counts answers by path and status."""

    KNOWN = ("/v1/completions", "/v1/chat/completions", "/v1/models", "/health", "/metrics")

    def __init__(self, app, metrics: Metrics):
        self.app, self.metrics = app, metrics

    async def __call__(self, scope, receive, send):
        """Passes a request on and counts its answer."""
        path = scope.get("path")

        async def count(message):
            if message["type"] == "http.response.start":
                self.metrics.requests.labels(path if path in self.KNOWN else "other", message["status"]).inc()
            await send(message)

        await self.app(scope, receive, count if scope["type"] == "http" else send)


def _answer_error(request: HttpRequest, error: Exception) -> JSONResponse:
    error = as_api_error(error)
    return JSONResponse(error.content, status_code=error.status, headers=error.headers)


def _answer_http_error(request: HttpRequest, error: HTTPException) -> JSONResponse:
    words = {
        404: f"there is nothing at {request.url.path[:100]!r}",
        405: f"{request.method} is not allowed for {request.url.path!r}",
    }
    told = ApiError(error.status_code, words.get(error.status_code, str(error.detail)), headers=error.headers)
    return _answer_error(request, told)
