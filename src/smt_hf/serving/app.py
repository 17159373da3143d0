"""The application: routes, and errors as clients of this interface expect them."""

import asyncio
import uuid

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from jinja2 import TemplateError
from starlette.exceptions import HTTPException

from ..errors import InputError
from .generation import GenerationStopped, StudentGenerationState
from .handlers import StudentChatHandler, StudentCompletionHandler, StudentManager
from .requests import check_messages, check_prompt, check_sampling

SECONDS_BETWEEN_LOOKS = 0.5


def build_app(student, tokenizer, name: str, max_tokens: int, generation: StudentGenerationState) -> FastAPI:
    """The application that answers for one student.

    Args:
        student: an `SmtRnnForCausalLM` in evaluation mode on its device.
        tokenizer: its tokenizer, a fast one; a text is encoded without added special tokens, as in training.
        name: what clients call the model.
        max_tokens: the longest answer that a request may ask for.
        generation: what runs the requests.
    """
    tokenizer.backend_tokenizer.post_processor = None
    manager = StudentManager(student, tokenizer, name, max_tokens)
    completions = StudentCompletionHandler(manager, generation)
    chats = StudentChatHandler(manager, generation)

    app = FastAPI(title="smt-hf serve")
    for kind in (HTTPException, GenerationStopped, ValueError, TemplateError):
        app.add_exception_handler(kind, _answer_error)

    @app.post("/v1/completions")
    async def complete(request: Request):
        body = await _read_body(request)
        check_prompt(body)
        check_sampling(body, max_tokens)
        return await _answer(completions, body, request)

    @app.post("/v1/chat/completions")
    async def chat(request: Request):
        body = await _read_body(request)
        check_messages(body, tokenizer.chat_template)
        check_sampling(body, max_tokens)
        return await _answer(chats, body, request)

    @app.get("/v1/models")
    def models():
        return {"object": "list", "data": [{"id": name, "object": "model", "created": 0, "owned_by": "smt-hf"}]}

    @app.get("/health")
    def health():
        return {"status": "ok"}

    return app


async def _read_body(request: Request) -> dict:
    try:
        body = await request.json()
    except ValueError as error:
        raise InputError(f"the body is no JSON ({error}): send an object") from error
    if not isinstance(body, dict):
        raise InputError(f"the body is a JSON {type(body).__name__}: send an object")
    return body


async def _answer(handler, body: dict, request: Request):
    """Runs a handler, and ends it when the client has gone: a streamed answer sees to that by itself."""
    answer = asyncio.create_task(handler.handle_request(body, str(uuid.uuid4())))
    try:
        while not answer.done():
            await asyncio.wait({answer}, timeout=SECONDS_BETWEEN_LOOKS)
            if not answer.done() and await request.is_disconnected():
                return JSONResponse(None, status_code=499)
        return answer.result()
    finally:
        answer.cancel()


def _answer_error(request: Request, error: Exception) -> JSONResponse:
    status, message = 400, str(error)
    if isinstance(error, HTTPException):
        status, message = error.status_code, error.detail
    elif isinstance(error, GenerationStopped):
        status = 503
    kind = "invalid_request_error" if status < 500 else "server_error"
    return JSONResponse({"error": {"message": message, "type": kind, "code": status}}, status_code=status)
