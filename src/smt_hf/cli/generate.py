"""`smt-hf generate`: stream text to the terminal."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from transformers import TextStreamer, set_seed

from ..checkpoints import load_student
from ..data import encode_documents, iter_text_file, load_tokenizer
from ..errors import InputError
from ..models import SmtMemory
from ..utils.text import readable
from .parsing import parse

DESCRIPTION = "Continue a text with a trained student and print it while it is written."
EXAMPLE = """example:
  smt-hf generate --model runs/dmt --prompt "Once upon a time" --max_new_tokens 300 --temperature 0.7
  smt-hf generate --model runs/dmt --text_file chapter.txt --save_memory runs/chapter --prompt "The next day"
  smt-hf generate --model runs/dmt --memory runs/chapter --prompt "The next day" --seed 1"""


@dataclass
class GenerateOptions:
    """What to write."""

    model: str | None = field(default=None, metadata={"help": "Folder or Hub id of a student or of an SMT run."})
    prompt: str = field(default="Once upon a time", metadata={"help": "The beginning; may be '' after a memory."})
    text_file: str | None = field(default=None, metadata={"help": "File of text to read before the prompt."})
    memory: str | None = field(
        default=None,
        metadata={"help": "Memory to start from: a folder or Hub id that --save_memory or SmtMemory wrote."},
    )
    save_memory: str | None = field(
        default=None,
        metadata={"help": "Folder to keep the memory in, as it is after --text_file and before the prompt."},
    )
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
    if not options.prompt and options.memory is None and options.text_file is None:
        raise InputError("prompt is empty: give at least one character, or a --memory or --text_file to go on from")
    if options.save_memory is not None and options.text_file is None and options.memory is None:
        raise InputError("save_memory has nothing to save: give --text_file")
    student, tokenizer = load_student(options.model).eval(), load_tokenizer(options.model)
    memory = read(student, tokenizer, options)
    if options.save_memory is not None:
        memory.save_pretrained(options.save_memory)
    set_seed(options.seed)
    write(student, tokenizer, options, memory)


def read(student, tokenizer, options: GenerateOptions) -> SmtMemory | None:
    """What the student remembers before the prompt: `options.memory`, then `options.text_file`, read as in training.

    Raises:
        InputError: if there is no such memory or text, or the memory is damaged, another student's, or that of several texts.
    """
    memory = None
    try:
        if options.memory is not None:
            memory = SmtMemory.from_pretrained(options.memory)
            memory.to_cache(student)
            if len(memory) != 1:
                raise InputError(
                    f"memory={options.memory!r} holds {len(memory)} memories: save one of them with memory[row].save_pretrained"
                )
        if options.text_file is not None:
            documents = list(iter_text_file(options.text_file))
            ids, *_ = encode_documents(documents, tokenizer)
            ids = torch.from_numpy(ids[:-1].astype(np.int64))[None]  # the last document goes on
            memory = student.read(ids.to(student.device), memory=memory)
    except (OSError, ValueError) as error:
        raise error if isinstance(error, InputError) else InputError(str(error).splitlines()[0]) from error
    return memory


def write(student, tokenizer, options: GenerateOptions, memory: SmtMemory | None = None) -> None:
    """Streams `options.num_samples` continuations of the prompt to the terminal."""
    inputs, prompt = {}, readable(options.prompt)
    if prompt != options.prompt:
        print("note: the prompt holds bytes that are not UTF-8; they are read as U+FFFD", file=sys.stderr)
    if prompt:
        inputs = tokenizer(prompt, return_tensors="pt", add_special_tokens=False).to(student.device)
    sampling = {"do_sample": False}
    if options.temperature > 0:
        sampling = {"do_sample": True, "temperature": options.temperature, "top_p": options.top_p, "top_k": 0}
    for sample in range(options.num_samples):
        if options.num_samples > 1:
            print(f"--- {sample + 1} ---")
        with torch.inference_mode():
            student.generate(
                **inputs,
                memory=memory,
                max_new_tokens=options.max_new_tokens,
                streamer=TextStreamer(tokenizer, skip_special_tokens=True),
                **sampling,
            )
