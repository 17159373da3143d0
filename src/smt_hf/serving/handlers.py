"""The handlers of `transformers serve`, given a student instead of a name to look up among transformers' own classes."""

from transformers.cli.serving.chat_completion import ChatCompletionHandler
from transformers.cli.serving.completion import CompletionHandler
from transformers.cli.serving.model_manager import ModelManager


class StudentManager(ModelManager):
    """Hands out the one student; handlers refuse a request that names another model.

    Args:
        student: the model.
        tokenizer: its tokenizer.
        name: what clients call it.
        max_tokens: the longest answer that may be asked for.
    """

    def __init__(self, student, tokenizer, name: str, max_tokens: int):
        super().__init__()
        self.student = student
        self.tokenizer = tokenizer
        self.force_model = name
        self.max_tokens = max_tokens

    @staticmethod
    def process_model_name(model_id):
        return model_id

    def load_model_and_processor(self, *args, **kwargs):
        return self.student, self.tokenizer


class _Sampling:
    def _build_generation_config(self, body, model_generation_config, use_cb=False):
        # The seed is set when the request's turn comes: here another request may be drawing.
        config = super()._build_generation_config({**body, "seed": None}, model_generation_config, use_cb=use_cb)
        config.seed = body.get("seed")
        if body.get("temperature") is not None:
            config.do_sample = body["temperature"] > 0
        elif config.do_sample is None:
            config.do_sample = True  # at temperature 1, as this interface has it
        if config.do_sample and config.top_k is None:
            config.top_k = 0
        limit = self.model_manager.max_tokens
        config.max_new_tokens = min(config.max_new_tokens or limit, limit)
        return config


class StudentCompletionHandler(_Sampling, CompletionHandler):
    """`/v1/completions`."""


class StudentChatHandler(_Sampling, ChatCompletionHandler):
    """`/v1/chat/completions`."""
