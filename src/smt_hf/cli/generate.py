"""`smt-hf generate`: stream text to the terminal, or draw images into a file."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from transformers import TextStreamer, set_seed

from ..checkpoints import load_student
from ..data import encode_documents, iter_text_file, load_processor, load_tokenizer
from ..data.image_folders import read_image
from ..errors import InputError
from ..images import generate_images, image_grid
from ..inference import SamplingParams, write_many
from ..models import SmtImageProcessor, SmtMemory
from ..utils.text import readable
from .parsing import Command, parse


@dataclass
class GenerateOptions:
    """What to write or draw, and how."""

    model: str | None = field(default=None, metadata={"help": "Folder or Hub id of a student or of an SMT run."})
    prompt: str = field(
        default="Once upon a time", metadata={"help": "Text to continue; may be '' with --memory or --text_file."}
    )
    prompts: str | None = field(
        default=None,
        metadata={"help": "File of prompts to continue together: one per line, or the rows of a .jsonl file."},
    )
    text_file: str | None = field(default=None, metadata={"help": "Text file to read before the prompt."})
    memory: str | None = field(
        default=None,
        metadata={"help": "Memory to start from: folder or Hub id of one saved by --save_memory or SmtMemory."},
    )
    save_memory: str | None = field(
        default=None,
        metadata={"help": "Folder to save the memory to, after --text_file and before the prompt."},
    )
    max_new_tokens: int = field(default=300, metadata={"help": "Stop after this many tokens."})
    num_samples: int = field(default=1, metadata={"help": "Number of continuations per prompt."})
    temperature: float | None = field(
        default=None,
        metadata={
            "help": "Sampling temperature; 0 takes the likeliest token. By default 0.7 for text and 1 for images, where every stroke "
            "begins with an unlikely pixel."
        },
    )
    top_p: float | None = field(
        default=None,
        metadata={
            "help": "Nucleus sampling: the share of probability to sample from; by default 0.95 for text and 1 for images."
        },
    )
    seed: int = field(default=0, metadata={"help": "Random seed for sampling."})
    images: int | None = field(
        default=None, metadata={"help": "Number of images to draw with a student trained on images; 64 by default."}
    )
    label: str | None = field(
        default=None, metadata={"help": "Class to draw, by number or name; all classes in turn by default."}
    )
    complete: str | None = field(
        default=None,
        metadata={"help": "Image to complete: its upper rows are given, and the student draws the others."},
    )
    complete_rows: int | None = field(
        default=None, metadata={"help": "Number of rows that --complete gives; half the height by default."}
    )
    guidance: float = field(
        default=1.0,
        metadata={
            "help": "How much more than the student's own samples the images should show their class; 1: no more. Other values take as "
            "many times the steps as there are classes."
        },
    )
    output: str | None = field(
        default=None, metadata={"help": "File for the grid of all drawn images; images.png by default."}
    )


# Options that only apply to text, and options that only apply to images.
OF_TEXT = ("prompt", "prompts", "text_file", "memory", "save_memory", "max_new_tokens", "num_samples")
OF_IMAGES = ("images", "label", "complete", "complete_rows", "guidance", "output")


COMMAND = Command(
    name="generate",
    kinds=[GenerateOptions],
    description="Continue a text with a trained student and print it as it is written, or draw with a student trained on images.",
    example=r"""example:
  smt-hf generate runs/dmt "Once upon a time" --temperature 0.7
  smt-hf generate runs/dmt "The next day" --text_file chapter.txt \
      --save_memory runs/chapter
  smt-hf generate runs/dmt "The next day" --memory runs/chapter --seed 1
  smt-hf generate runs/digits/dmt --images 20 --label 3 --output threes.png""",
    positionals=["model", "prompt"],
    required={"model": "the folder or Hub id of a student"},
)


def main(argv: Sequence[str]) -> None:
    """Runs the command."""
    (options,) = parse(COMMAND, argv)
    processor = load_processor(options.model)
    refuse(options, OF_IMAGES if processor is None else OF_TEXT, "text" if processor is None else "images")
    if processor is not None:
        return draw(processor, options)
    if options.prompts is not None and options.prompt != GenerateOptions.prompt:
        raise InputError(f"prompt={options.prompt!r} and prompts={options.prompts!r} are both given: leave one out")
    if not options.prompt and options.memory is None and options.text_file is None:
        raise InputError("prompt is empty: pass at least one character, or a --memory or --text_file to continue")
    if options.save_memory is not None and options.text_file is None and options.memory is None:
        raise InputError("save_memory has nothing to save: pass --text_file")
    prompts = [options.prompt] if options.prompts is None else list(iter_text_file(options.prompts, separator="\n"))
    student, tokenizer = load_student(options.model).eval(), load_tokenizer(options.model)
    memory = read(student, tokenizer, options)
    if options.save_memory is not None:
        memory.save_pretrained(options.save_memory)
    set_seed(options.seed)
    write(student, tokenizer, prompts, options, memory)


def with_defaults(options: GenerateOptions, temperature: float, top_p: float) -> GenerateOptions:
    """The options, with these values where none was given."""
    given = {"temperature": options.temperature, "top_p": options.top_p}
    defaults = {"temperature": temperature, "top_p": top_p}
    return replace(options, **{name: defaults[name] for name, value in given.items() if value is None})


def refuse(options: GenerateOptions, names: Sequence[str], kind: str) -> None:
    """Raises an [`InputError`] for an option that does not apply to a student of this kind."""
    for name in names:
        if getattr(options, name) != getattr(GenerateOptions, name):
            raise InputError(
                f"{name}={getattr(options, name)!r} does not apply: {options.model!r} is a student trained on {kind}"
            )


def draw(processor: SmtImageProcessor, options: GenerateOptions) -> None:
    """Draws images and writes them to one file."""
    images = draw_images(processor, options)
    output = Path(options.output or "images.png").expanduser()
    in_turn = processor.num_classes and options.label is None and len(images) % processor.num_classes == 0
    output.parent.mkdir(parents=True, exist_ok=True)
    image_grid(images, processor.num_classes if in_turn else None).save(output)
    print(
        f"{len(images)} images of {processor.size['height']} x {processor.size['width']} pixels are in {options.output or output}"
    )


def draw_images(processor: SmtImageProcessor, options: GenerateOptions) -> list:
    """Draws the images that the options ask for."""
    given = None if options.complete is None else read_image(Path(options.complete).expanduser())
    student, num_images = load_student(options.model).eval(), options.images or 64
    options = with_defaults(options, temperature=1.0, top_p=1.0)
    sampling = {name: getattr(options, name) for name in ("temperature", "top_p", "seed", "guidance")}
    return generate_images(student, processor, num_images, options.label, given, options.complete_rows, **sampling)


def read(student, tokenizer, options: GenerateOptions) -> SmtMemory | None:
    """The memory before the prompt: that of `options.memory`, after reading `options.text_file` as in training.

    Raises:
        InputError: if the memory or text does not exist, or the memory is damaged, another student's, or that of several texts.
    """
    memory = None
    try:
        if options.memory is not None:
            memory = SmtMemory.from_pretrained(options.memory)
            memory.to_cache(student)
            if len(memory) != 1:
                raise InputError(
                    f"memory={options.memory!r} contains {len(memory)} memories: save one of them with memory[row].save_pretrained"
                )
        if options.text_file is not None:
            documents = list(iter_text_file(options.text_file))
            ids, *_ = encode_documents(documents, tokenizer)
            ids = torch.from_numpy(ids[:-1].astype(np.int64))[None]  # the last document continues
            memory = student.read(ids.to(student.device), memory=memory)
    except (OSError, ValueError) as error:
        raise error if isinstance(error, InputError) else InputError(str(error).splitlines()[0]) from error
    return memory


def write(student, tokenizer, prompts: list[str], options: GenerateOptions, memory: SmtMemory | None = None) -> None:
    """Streams the continuation of a prompt to the terminal; several are written together and printed when all are done.

    The first sample of each prompt uses the seed, further samples the seeds after it.
    """
    options = with_defaults(options, temperature=0.7, top_p=0.95)
    if any(readable(prompt) != prompt for prompt in prompts):
        print("note: the prompt contains bytes that are not UTF-8; they are read as U+FFFD", file=sys.stderr)
    if len(prompts) * options.num_samples == 1:
        return stream(student, tokenizer, readable(prompts[0]), options, memory)
    params = SamplingParams(
        options.max_new_tokens,
        options.temperature,
        top_p=options.top_p,
        seed=options.seed,
        n=options.num_samples,
    )
    answers = write_many(student, tokenizer, prompts, params, memory, progress=True)
    texts = [prompt + answer.text for prompt, some in zip(prompts, answers, strict=True) for answer in some]
    for number, text in enumerate(texts, 1):
        print(f"--- {number} ---\n{readable(text)}")
    failed = [answer.error for some in answers for answer in some if answer.error is not None]
    if failed:
        raise RuntimeError(f"{len(failed)} of {len(texts)} texts could not be written ({failed[0]})")


def stream(student, tokenizer, prompt: str, options: GenerateOptions, memory: SmtMemory | None) -> None:
    """Prints one continuation as it is written."""
    inputs, sampling = {}, {"do_sample": False}
    if options.temperature > 0:
        sampling = {"do_sample": True, "temperature": options.temperature, "top_p": options.top_p, "top_k": 0}
    if prompt:
        inputs = tokenizer(prompt, return_tensors="pt", add_special_tokens=False).to(student.device)
    with torch.inference_mode():
        student.generate(
            **inputs,
            memory=memory,
            max_new_tokens=options.max_new_tokens,
            streamer=TextStreamer(tokenizer, skip_special_tokens=True),
            **sampling,
        )
