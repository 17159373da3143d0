"""What turns a model's inputs into token ids: its tokenizer, or its image processor."""

import json
from pathlib import Path

from transformers import PreTrainedTokenizerBase
from transformers.utils import cached_file

from ..errors import InputError, one_line
from ..models.image_processing_smt import SmtImageProcessor
from .tokenizer import load_tokenizer

PROCESSOR = "preprocessor_config.json"


def load_processing(model: str) -> PreTrainedTokenizerBase | SmtImageProcessor:
    """Return the image processor that was saved with a model, or its tokenizer.

    Raises:
        InputError: if neither can be loaded.
    """
    processor = load_processor(model)
    return load_tokenizer(model) if processor is None else processor


def load_processor(model: str) -> SmtImageProcessor | None:
    """Return the image processor that was saved with a model, `None` if there is none. Code beside it is never run.

    Args:
        model: folder or Hub id.

    Raises:
        InputError: if it is damaged, or one of another kind.
    """
    try:
        file = cached_file(Path(model).expanduser(), PROCESSOR, _raise_exceptions_for_missing_entries=False)
    except OSError:  # no such folder or repository, which the tokenizer's message explains
        file = None
    if file is None:
        return None
    try:
        values = json.loads(Path(file).read_text(encoding="utf-8"))
        if not isinstance(values, dict) or values.get("image_processor_type") != SmtImageProcessor.__name__:
            raise ValueError("it is for a different kind of image processor")
        return SmtImageProcessor.from_dict(values)
    except (OSError, ValueError, TypeError) as error:
        raise InputError(
            f"{PROCESSOR} of {model!r} cannot be read ({one_line(error)}): pass the folder of a student trained on images"
        ) from error
