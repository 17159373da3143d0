"""What a request may ask; what cannot be answered is refused by name instead of being passed over."""

import json
import math

from ..errors import InputError

# Fields that only their neutral value is understood of.
NEUTRAL = {"n": 1, "best_of": 1, "echo": False, "logprobs": False, "top_logprobs": 0, "presence_penalty": 0}
LENGTHS = ("max_tokens", "max_completion_tokens")


def check_sampling(body: dict, max_tokens: int) -> None:
    """Checks what completions and chats have in common.

    Args:
        body: the request.
        max_tokens: the longest answer that may be asked for.

    Raises:
        InputError: for a field of the wrong type, out of its range, or with a meaning that is not supported.
    """
    for name, neutral in NEUTRAL.items():
        if body.get(name) not in (None, neutral):
            raise InputError(f"{name}={body[name]!r} is not supported: leave {name} out")
    for name in LENGTHS:
        _check_number(body, name, 1, max_tokens, whole=True)
    _check_number(body, "temperature", 0, math.inf)
    _check_number(body, "top_p", 0, 1)
    if body.get("top_p") == 0:
        raise InputError("top_p=0 must be above 0: give temperature=0 for the likeliest token")
    _check_number(body, "frequency_penalty", -1, math.inf)
    if body.get("frequency_penalty") == -1:
        raise InputError("frequency_penalty=-1 must be above -1")
    _check_number(body, "seed", -(2**63), 2**63 - 1, whole=True)
    stops = body.get("stop")
    listed = [stops] if stops is None or isinstance(stops, str) else stops
    if stops is not None and not (isinstance(listed, list) and all(isinstance(s, str) and s for s in listed)):
        raise InputError(f"stop={stops!r} must be a string that is not empty, or a list of them")
    if body.get("generation_config") is not None:
        _check_generation_config(body["generation_config"])


def check_prompt(body: dict) -> None:
    """Checks the prompt of a completion.

    Raises:
        InputError: if it is missing, no string, or empty.
    """
    prompt = body.get("prompt")
    if not isinstance(prompt, str):
        raise InputError(f"prompt is of type {type(prompt).__name__}: give one string")
    if not prompt:
        raise InputError("prompt is empty: give at least one character")


def check_messages(body: dict, chat_template) -> None:
    """Checks the messages of a chat, and that there is a template to write them down with.

    Raises:
        InputError: if there is no chat template or no message, or a message has no role or no text.
    """
    if not chat_template:
        raise InputError(
            "this model's tokenizer has no chat_template: use /v1/completions, or set tokenizer.chat_template and save "
            "the tokenizer in the model's folder"
        )
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise InputError(f"messages={messages!r} must be a list of at least one message")
    for message in messages:
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise InputError(f"the message {message!r} has no role")
        if not _is_text(message.get("content")):
            raise InputError(f"the message {message!r} has no text: give content a string, or a list of text parts")


def _is_text(content) -> bool:
    if isinstance(content, list):
        return all(isinstance(p, dict) and p.get("type") == "text" and isinstance(p.get("text"), str) for p in content)
    return isinstance(content, str)


def _check_number(body: dict, name: str, low: float, high: float, whole: bool = False) -> None:
    value = body.get(name)
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)):
        raise InputError(f"{name}={value!r} must be a {'whole ' if whole else ''}number")
    if not low <= value <= high:
        bounds = f"between {low} and {high}" if high < math.inf else f"at least {low}"
        raise InputError(f"{name}={value} must be {bounds}")


def _check_generation_config(text) -> None:
    try:
        mapping = isinstance(json.loads(text), dict)
    except (TypeError, ValueError):
        mapping = False
    if not mapping:
        raise InputError(f"generation_config={text!r} must be a JSON object, written as a string")
