"""Turns the engine's answers into the interface's JSON."""

import json
import time
import uuid
from collections.abc import Sequence

from ..inference import Answer, Piece, Ticket, TokenLogprob

# json.dumps would create an encoder for every event.
_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


class Form:
    """Builds the JSON of the answer to one request, whole or piece by piece.

    Args:
        name: the model's name.
        tokenizer: the tokenizer, for the text of single tokens.
        num_prompts: number of prompts in the request.
        n: number of answers to each.
    """

    whole_object = piece_object = "text_completion"
    prefix = "cmpl-"

    def __init__(self, name: str, tokenizer, num_prompts: int = 1, n: int = 1):
        self.tokenizer, self.n = tokenizer, n
        self.head = {"id": self.prefix + uuid.uuid4().hex, "created": int(time.time()), "model": name}
        self.offsets = [0] * (num_prompts * n)

    def whole(self, tickets: Sequence[Ticket], texts: Sequence[str], memories: Sequence[str | None]) -> dict:
        """The answer to a request without `stream`; `texts` are the prompts, if they are to be echoed."""
        choices = []
        for number, ticket in enumerate(tickets):
            for index, answer in enumerate(ticket.answers):
                place = number * self.n + index
                echoed = texts[number] if texts else ""
                choice = self.choice(place, answer, echoed, ticket.prompt_logprobs)
                if memories:
                    choice["memory"] = memories[place]
                choices.append(choice)
        return {**self.head, "object": self.whole_object, "choices": choices, "usage": usage(tickets)}

    def choice(self, place: int, answer: Answer, echoed: str, prompt_logprobs: list[TokenLogprob]) -> dict:
        """One answer."""
        scores = (prompt_logprobs if echoed else []) + answer.logprobs
        return {
            "index": place,
            "text": echoed + answer.text,
            "logprobs": self.logprobs(place, scores) if scores else None,
            "finish_reason": answer.finish_reason,
        }

    def first(self, place: int, echoed: str, prompt_logprobs: list[TokenLogprob]) -> dict | None:
        """The first event of an answer in a stream; `None` without one."""
        if not echoed:
            return None
        scores = self.logprobs(place, prompt_logprobs) if prompt_logprobs else None
        return self.chunk({"index": place, "text": echoed, "logprobs": scores, "finish_reason": None})

    def piece(self, place: int, piece: Piece, memory: str | None = None) -> dict:
        """The event for one piece of an answer."""
        scores = self.logprobs(place, piece.logprobs) if piece.logprobs else None
        choice = {"index": place, "text": piece.text, "logprobs": scores, "finish_reason": piece.finish_reason}
        if memory is not None:
            choice["memory"] = memory
        return self.chunk(choice)

    def chunk(self, *choices: dict) -> dict:
        """One event of a stream."""
        return {**self.head, "object": self.piece_object, "choices": list(choices)}

    def last(self, tickets: Sequence[Ticket]) -> dict:
        """The event that reports the usage."""
        return {**self.chunk(), "usage": usage(tickets)}

    def logprobs(self, place: int, scores: Sequence[TokenLogprob]) -> dict:
        """Log-probabilities in four lists, the format of completions."""
        tokens, offsets = [self.token(score.token) for score in scores], []
        for token in tokens:
            offsets.append(self.offsets[place])
            self.offsets[place] += len(token)
        tops = []
        for score, token in zip(scores, tokens, strict=True):
            top: dict[str, float] = {}
            for token_id, logprob in score.top.items():  # most likely first
                top.setdefault(self.token(token_id), logprob)
            top.setdefault(token, score.logprob)
            tops.append(top)
        return {
            "tokens": tokens,
            "token_logprobs": [score.logprob for score in scores],
            "top_logprobs": tops,
            "text_offset": offsets,
        }

    def token(self, token_id: int) -> str:
        """The text of one token, or its name if it has no text of its own, so that different tokens look different."""
        text = self.tokenizer.decode([token_id])
        return self.tokenizer.convert_ids_to_tokens(token_id) if "\ufffd" in text or not text else text


class ChatForm(Form):
    """A [`Form`] for chats."""

    whole_object, piece_object, prefix = "chat.completion", "chat.completion.chunk", "chatcmpl-"

    def choice(self, place, answer, echoed, prompt_logprobs):
        """See [`Form.choice`]."""
        return {
            "index": place,
            "message": {"role": "assistant", "content": answer.text, "refusal": None},
            "logprobs": self.logprobs(place, answer.logprobs) if answer.logprobs else None,
            "finish_reason": answer.finish_reason,
        }

    def first(self, place, echoed, prompt_logprobs):
        """See [`Form.first`]."""
        delta = {"role": "assistant", "content": ""}
        return self.chunk({"index": place, "delta": delta, "logprobs": None, "finish_reason": None})

    def piece(self, place, piece, memory=None):
        """See [`Form.piece`]."""
        choice = {
            "index": place,
            "delta": {"content": piece.text} if piece.text else {},
            "logprobs": self.logprobs(place, piece.logprobs) if piece.logprobs else None,
            "finish_reason": piece.finish_reason,
        }
        if memory is not None:
            choice["memory"] = memory
        return self.chunk(choice)

    def logprobs(self, place, scores):
        """Log-probabilities in the format of chats."""
        return {"content": [{**self._score(s.token, s.logprob), "top_logprobs": self._tops(s)} for s in scores]}

    def _tops(self, score: TokenLogprob) -> list[dict]:
        return [self._score(token, logprob) for token, logprob in score.top.items()]

    def _score(self, token_id: int, logprob: float) -> dict:
        token = self.token(token_id)
        return {"token": token, "logprob": logprob, "bytes": list(token.encode("utf-8", "surrogatepass"))}


def usage(tickets: Sequence[Ticket]) -> dict:
    """Tokens read and written. Prompts are counted in full; their cached tokens are listed separately."""
    prompt = sum(len(ticket.request.prompt_ids) for ticket in tickets)
    written = sum(len(answer.ids) for ticket in tickets for answer in ticket.answers)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": written,
        "total_tokens": prompt + written,
        "prompt_tokens_details": {"cached_tokens": sum(ticket.num_cached for ticket in tickets)},
    }


def event(content: dict) -> bytes:
    """A server-sent event."""
    return f"data: {_encode(content)}\n\n".encode()


DONE = b"data: [DONE]\n\n"
