"""`smt-hf generate`: stream text to the terminal."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from transformers import TextStreamer, set_seed

from ..checkpoints import load_student
from ..data import load_tokenizer
from ..errors import InputError
from .parsing import parse

DESCRIPTION = "Continue a text with a trained student and print it while it is written."
EXAMPLE = """example:
  smt-hf generate --model runs/dmt --prompt "Once upon a time" --max_new_tokens 300 --temperature 0.7"""


@dataclass
class GenerateOptions:
    """What to write."""

    model: str | None = field(default=None, metadata={"help": "Folder or Hub id of a student or of an SMT run."})
    prompt: str = field(default="Once upon a time", metadata={"help": "The beginning."})
    max_new_tokens: int = field(default=300, metadata={"help": "Stop after so many tokens."})
    num_samples: int = field(default=1, metadata={"help": "Continuations to write."})
    temperature: float = field(default=0.7, metadata={"help": "Sampling temperature; 0 takes the likeliest token."})
    top_p: float = field(default=0.95, metadata={"help": "Nucleus sampling: the share of probability to draw from."})
    seed: int = field(default=0, metadata={"help": "Seed of the sampling."})


def main(argv: Sequence[str]) -> None:
    """Runs the command."""
    (options,) = parse([GenerateOptions], argv, "generate", DESCRIPTION, EXAMPLE)
    if options.model is None:
        raise InputError("model is missing: give --model the folder of a student")
    if not options.prompt:
        raise InputError("prompt is empty: give at least one character")
    if options.temperature < 0:
        raise InputError(f"temperature={options.temperature} must not be negative")
    student, tokenizer = load_student(options.model).eval(), load_tokenizer(options.model)
    set_seed(options.seed)
    write(student, tokenizer, options)


def write(student, tokenizer, options: GenerateOptions) -> None:
    """Streams `options.num_samples` continuations of the prompt to the terminal."""
    inputs = tokenizer(options.prompt, return_tensors="pt", add_special_tokens=False).to(student.device)
    sampling = {"do_sample": False}
    if options.temperature > 0:
        sampling = {"do_sample": True, "temperature": options.temperature, "top_p": options.top_p, "top_k": 0}
    for sample in range(options.num_samples):
        if options.num_samples > 1:
            print(f"--- {sample + 1} ---")
        with torch.inference_mode():
            student.generate(
                **inputs,
                max_new_tokens=options.max_new_tokens,
                streamer=TextStreamer(tokenizer, skip_special_tokens=True),
                **sampling,
            )
