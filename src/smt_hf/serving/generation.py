"""Running requests one after another on the thread that belongs to the model."""

import asyncio
import threading

import torch
from transformers.cli.serving.utils import GenerateManager, GenerationState

from .stops import StopQueue, cut


class GenerationStopped(Exception):
    """Nobody waits for the answer any more, or the server stops."""


class Call:
    """One request as its turn comes: its own seed, its own cache, and an end before its time where it must be.

    Args:
        model: the student.
        seed: of its draws; `None` takes a fresh one.
        stopping: set when the server stops.
    """

    def __init__(self, model, seed: int | None, stopping: threading.Event):
        self.model = model
        self.seed = seed
        self.stopping = stopping
        self.left = False  # the client has gone

    def generate(self, **kwargs):
        """`model.generate`.

        Raises:
            GenerationStopped: if the client has gone or the server stops, before or between two tokens.
        """
        self._go_on()
        if self.seed is None:
            torch.seed()
        else:
            torch.manual_seed(self.seed)
        return self.model.generate(stopping_criteria=[self._go_on], **kwargs)

    def _go_on(self, input_ids=None, scores=None, **kwargs):
        if self.left:
            raise GenerationStopped("the client has gone")
        if self.stopping.is_set():
            raise GenerationStopped("the server is stopping")
        if input_ids is not None:
            return torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)


class StudentGenerateManager(GenerateManager):
    """Generation with a seed for each request, and without the stop strings in the answer."""

    def __init__(self):
        super().__init__()
        self.stopping = threading.Event()

    def generate_streaming(self, model, processor, inputs, gen_config, request_id, response_parser=None):
        call = Call(model, gen_config.seed, self.stopping)
        queue, streamer = super().generate_streaming(call, processor, inputs, gen_config, request_id, response_parser)
        return StopQueue(queue, stop_strings(gen_config)), streamer

    async def generate_non_streaming(self, model, processor, inputs, gen_config, request_id):
        call = Call(model, gen_config.seed, self.stopping)
        try:
            text, *counts = await super().generate_non_streaming(call, processor, inputs, gen_config, request_id)
        except asyncio.CancelledError:
            call.left = True
            raise
        return cut(text, stop_strings(gen_config)), *counts

    def stop(self) -> None:
        """Ends what runs and what waits for its turn."""
        self.stopping.set()

    def async_submit(self, fn, *args, **kwargs):
        loop = asyncio.get_running_loop()
        answer = loop.create_future()

        def hand_over(done):
            if answer.cancelled():  # whoever waited has gone
                return
            if done.exception() is None:
                answer.set_result(done.result())
            else:
                answer.set_exception(done.exception())

        submitted = self.submit(fn, *args, **kwargs)
        submitted.add_done_callback(lambda done: loop.call_soon_threadsafe(hand_over, done))
        return answer


class StudentGenerationState(GenerationState):
    """One manager for completions and chats. No continuous batching: pages of keys and values are what it shares out."""

    def __init__(self):
        super().__init__(continuous_batching=False)
        self.manager = StudentGenerateManager()

    def get_manager(self, model_id, use_cb=False):
        return self.manager


def stop_strings(gen_config) -> list[str]:
    """The stop strings of a request as a list."""
    stops = gen_config.stop_strings or []
    return [stops] if isinstance(stops, str) else stops
