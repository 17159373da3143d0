"""Turns a body into requests for the engine. Every field is obeyed, has no effect here, or is refused by name."""

import json
from dataclasses import dataclass, field

from ..errors import InputError
from ..inference import SamplingParams
from ..utils.text import readable
from .errors import ApiError

# Fields that concern the client, not the answer.
NO_EFFECT = {
    "user",
    "metadata",
    "store",
    "service_tier",
    "safety_identifier",
    "prompt_cache_key",
    "prompt_cache_retention",
}
# Fields that may only ask for what happens anyway.
NEUTRAL = {
    "suffix": (None, ""),
    "response_format": (None, {"type": "text"}),
    "tools": (None, []),
    "tool_choice": (None, "none", "auto"),
    "functions": (None, []),
    "function_call": (None, "none", "auto"),
    "parallel_tool_calls": (None, False, True),
    "modalities": (None, ["text"]),
    "audio": (None,),
    "prediction": (None,),
    "web_search_options": (None,),
    "reasoning_effort": (None, "none"),
    "verbosity": (None, "medium"),
    "chat_template": (None,),
    "chat_template_kwargs": (None, {}),
    "generation_config": (None, {}),
    "continue_final_message": (None, False),
    "add_generation_prompt": (None, True),
}
NUMBERS = (
    "temperature",
    "top_k",
    "top_p",
    "min_p",
    "repetition_penalty",
    "frequency_penalty",
    "presence_penalty",
    "n",
    "seed",
)
COMMON = {
    "model",
    "stream",
    "stream_options",
    "stop",
    "max_tokens",
    "logit_bias",
    "logprobs",
    "memory",
    "return_memory",
    "use_teacher",
    *NUMBERS,
}
COMPLETION = COMMON | {"prompt", "echo", "best_of"}
CHAT = COMMON | {"messages", "max_completion_tokens", "top_logprobs"}
DEFAULT_MAX_TOKENS = 16  # the interface's default for completions
MOST_LOGPROBS = 20
MOST_STOPS = 16


@dataclass(frozen=True)
class Limits:
    """Limits on requests.

    Args:
        max_tokens: maximum number of tokens in an answer.
        max_prompt_tokens: maximum number of tokens in a prompt.
        max_answers: maximum number of answers to all prompts of a request together.
        timeout: seconds after which an unfinished request is ended; `None` for no limit.
    """

    max_tokens: int = 4096
    max_prompt_tokens: int = 131_072
    max_answers: int = 256
    timeout: float | None = 600.0


@dataclass
class Asked:
    """A parsed body.

    Args:
        prompts: token ids of each prompt.
        params: the sampling settings.
        texts: the prompts as text, for `echo`.
        stream, include_usage, echo, return_memory, use_teacher: as in the body.
        memory: the body's `memory`, not checked yet.
    """

    prompts: list[list[int]]
    params: SamplingParams
    texts: list[str] = field(default_factory=list)
    stream: bool = False
    include_usage: bool = False
    echo: bool = False
    return_memory: bool = False
    use_teacher: bool = False
    memory: str | None = None


def parse_json(body: bytes) -> dict:
    """The JSON object in a body.

    Raises:
        InputError: for anything other than an object.
    """

    def refuse(word):
        raise InputError(f"the body contains {word}, which is not JSON: send a number")

    try:
        value = json.loads(body, parse_constant=refuse)
    except InputError:
        raise
    except json.JSONDecodeError as error:
        raise InputError(f"the body is not JSON ({error}): send an object") from error
    except UnicodeDecodeError as error:
        raise InputError(f"the body is not UTF-8 (byte {error.start}): send JSON in UTF-8") from error
    except ValueError as error:  # from int: Python limits the number of digits
        raise InputError("the body contains a number with thousands of digits: send a shorter one") from error
    except RecursionError as error:
        raise InputError("the body is nested too deeply: send an object as the documentation describes") from error
    if not isinstance(value, dict):
        raise InputError(f"the body is a JSON {type(value).__name__}: send an object")
    return value


def parse_completion(body: dict, name: str, tokenizer, limits: Limits) -> Asked:
    """Parses a body of `/v1/completions`.

    Raises:
        InputError: for a field that cannot be obeyed.
        ApiError: if it asks for another model.
    """
    _check_fields(body, COMPLETION, name)
    echo = _flag(body, "echo")
    logprobs = body.get("logprobs")
    if isinstance(logprobs, bool):
        raise InputError(
            f"logprobs={logprobs} must be a whole number: it says how many of the most likely tokens to return"
        )
    params = _params(body, body.get("max_tokens"), DEFAULT_MAX_TOKENS, limits, logprobs, least=0 if echo else 1)
    best_of = body.get("best_of")
    if best_of not in (None, params.n):
        raise InputError(f"best_of={best_of!r} is not supported with n={params.n}: leave it out")
    prompts = _prompts(body.get("prompt"))
    has_memory = body.get("memory") is not None
    ids = [_encode(prompt, tokenizer, limits, has_memory) for prompt in prompts]
    texts = []
    if echo:
        texts = [
            tokenizer.decode(i) if isinstance(p, list) else readable(p) for p, i in zip(prompts, ids, strict=True)
        ]
    return _asked(body, ids, params, limits, echo=echo, texts=texts)


def parse_chat(body: dict, name: str, tokenizer, limits: Limits) -> Asked:
    """Parses a body of `/v1/chat/completions`.

    Raises:
        InputError: for a field that cannot be obeyed, or messages that the chat template cannot render.
        ApiError: if it asks for another model.
    """
    _check_fields(body, CHAT, name)
    lengths = [body.get("max_tokens"), body.get("max_completion_tokens")]
    if None not in lengths and lengths[0] != lengths[1]:
        raise InputError("max_tokens and max_completion_tokens are two names for one limit: send one of them")
    length = lengths[0] if lengths[1] is None else lengths[1]
    wants = _flag(body, "logprobs")
    top = body.get("top_logprobs")
    if top is not None and not wants:
        raise InputError(f"top_logprobs={top!r} needs logprobs=true")
    params = _params(body, length, limits.max_tokens, limits, (top or 0) if wants else None)
    text = _render(body.get("messages"), tokenizer)
    ids = _encode(text, tokenizer, limits, body.get("memory") is not None)
    return _asked(body, [ids], params, limits)


def _asked(body: dict, ids: list[list[int]], params: SamplingParams, limits: Limits, **more) -> Asked:
    if len(ids) * params.n > limits.max_answers:
        raise InputError(
            f"{len(ids)} prompts with n={params.n} are {len(ids) * params.n} answers: ask for at most {limits.max_answers}"
        )
    stream, options = _flag(body, "stream"), body.get("stream_options")
    if options is not None and not (
        isinstance(options, dict) and set(options) <= {"include_usage", "include_obfuscation"}
    ):
        raise InputError(f"stream_options={_shown(options)} must be an object with include_usage")
    if options is not None and not stream:
        raise InputError("stream_options needs stream=true")
    memory = body.get("memory")
    if not isinstance(memory, str | None):
        raise InputError(f"memory is of type {type(memory).__name__}: send the string from an earlier answer")
    usage = bool((options or {}).get("include_usage"))
    return Asked(
        ids,
        params,
        stream=stream,
        include_usage=usage,
        return_memory=_flag(body, "return_memory"),
        use_teacher=_flag(body, "use_teacher"),
        memory=memory,
        **more,
    )


def _check_fields(body: dict, known: set[str], name: str) -> None:
    for key, value in body.items():
        if key in known or key in NO_EFFECT:
            continue
        if key not in NEUTRAL:
            raise InputError(f"the field {_shown(key)} is unknown here: leave it out")
        if not any(value == neutral and type(value) is type(neutral) for neutral in NEUTRAL[key]):
            raise InputError(f"{key}={_shown(value)} is not supported: leave {key} out")
    model = body.get("model")
    if model is not None and model != name:
        raise ApiError(404, f"there is no model {_shown(model)} here: ask for {name!r}", "model_not_found", "model")


def _params(body: dict, length, default: int, limits: Limits, logprobs, least: int = 1) -> SamplingParams:
    length = min(default, limits.max_tokens) if length is None else length
    _check_whole("max_tokens", length, least, limits.max_tokens)
    if logprobs is not None:
        _check_whole("logprobs", logprobs, 0, MOST_LOGPROBS)
    stops = body.get("stop")
    stops = [] if stops is None else [stops] if isinstance(stops, str) else stops
    if not isinstance(stops, list) or len(stops) > MOST_STOPS:
        raise InputError(f"stop={_shown(stops)} must be a string or a list of at most {MOST_STOPS} strings")
    if not all(isinstance(stop, str) and stop for stop in stops):
        raise InputError(f"stop={_shown(stops)} must be non-empty strings")
    given = {name: body[name] for name in NUMBERS if body.get(name) is not None}
    if given.get("top_p") == 0:
        raise InputError("top_p=0 must be above 0: send temperature=0 for the likeliest token")
    if given.get("top_k") == -1:  # means "all" on other servers
        given["top_k"] = 0
    return SamplingParams(
        max_new_tokens=length, logprobs=logprobs, stop=tuple(stops), logit_bias=_bias(body.get("logit_bias")), **given
    )


def _bias(bias) -> dict[int, float]:
    if bias is None:
        return {}
    if not isinstance(bias, dict):
        raise InputError(f"logit_bias={_shown(bias)} must map token ids to numbers")
    try:
        return {int(token): value for token, value in bias.items()}
    except ValueError as error:
        raise InputError(f"logit_bias={_shown(bias)} must have token ids as keys") from error


def _prompts(prompt) -> list:
    """The prompts, given in any of the interface's four forms: a string, strings, ids, lists of ids."""
    if isinstance(prompt, str):
        return [prompt]
    if isinstance(prompt, list) and prompt:
        if all(isinstance(part, str) for part in prompt) or all(_is_ids(part) for part in prompt):
            return prompt
        if _is_ids(prompt):
            return [prompt]
    raise InputError("prompt must be a string, a list of strings, a list of token ids, or a list of such lists")


def _is_ids(value) -> bool:
    return isinstance(value, list) and all(type(token) is int for token in value)


def _encode(prompt, tokenizer, limits: Limits, has_memory: bool) -> list[int]:
    if not prompt and not has_memory:
        raise InputError("the prompt is empty: send at least one character or token")
    ids = prompt
    if isinstance(prompt, str):
        ids = tokenizer.backend_tokenizer.encode(readable(prompt), add_special_tokens=False).ids
    if len(ids) > limits.max_prompt_tokens:
        raise ApiError(
            400,
            f"the prompt has {len(ids)} tokens, more than the {limits.max_prompt_tokens} allowed here: send fewer",
            "context_length_exceeded",
            "prompt",
        )
    if not all(0 <= token < len(tokenizer) for token in ids):
        wrong = next(token for token in ids if not 0 <= token < len(tokenizer))
        raise InputError(
            f"the prompt contains the token id {wrong}: for this model it must be between 0 and {len(tokenizer) - 1}"
        )
    return ids


def _render(messages, tokenizer) -> str:
    if not tokenizer.chat_template:
        raise InputError(
            "this model's tokenizer has no chat_template: use /v1/completions, or set tokenizer.chat_template and save "
            "the tokenizer in the model's folder"
        )
    if not isinstance(messages, list) or not messages:
        raise InputError(f"messages={_shown(messages)} must be a list of at least one message")
    plain = [_message(message) for message in messages]
    try:
        return tokenizer.apply_chat_template(plain, tokenize=False, add_generation_prompt=True)
    except Exception as error:  # templates raise any kind of error, and belong to the model, not the request
        raise InputError(f"the chat template cannot render these messages ({_shown(str(error))})") from error


def _message(message) -> dict[str, str]:
    """A message as the template receives it: text only, so that no request can pass it anything else."""
    if not isinstance(message, dict) or not isinstance(message.get("role"), str):
        raise InputError(f"the message {_shown(message)} has no role")
    for key, value in message.items():
        if key not in ("role", "content", "name") and value not in (None, [], ""):
            raise InputError(f"{key} of a message is not supported: leave it out")
    content = message.get("content")
    if isinstance(content, list) and all(_is_text_part(part) for part in content):
        content = "".join(part["text"] for part in content)
    if not isinstance(content, str):
        raise InputError(
            f"the message {_shown(message)} has no text: content must be a string, or a list of text parts"
        )
    plain = {"role": readable(message["role"]), "content": readable(content)}
    if isinstance(message.get("name"), str):
        plain["name"] = readable(message["name"])
    return plain


def _is_text_part(part) -> bool:
    return isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str)


def _flag(body: dict, name: str) -> bool:
    value = body.get(name)
    if value not in (None, True, False) or isinstance(value, int | float) and not isinstance(value, bool):
        raise InputError(f"{name}={_shown(value)} must be true or false")
    return bool(value)


def _check_whole(name: str, value, low: int, high: int) -> None:
    if type(value) is not int:
        raise InputError(f"{name}={_shown(value)} must be a whole number")
    if not low <= value <= high:
        raise InputError(f"{name}={value} must be between {low} and {high}")


def _shown(value) -> str:
    """Any value that a client sent, in a form that is safe to show in a message."""
    text = readable(value if isinstance(value, str) else repr(value))
    text = repr(text) if isinstance(value, str) else text
    return text if len(text) <= 120 else text[:117] + "..."
