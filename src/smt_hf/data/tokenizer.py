"""The byte tokenizer, and loading any other tokenizer by name."""

import json
import os

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast
from transformers.convert_slow_tokenizer import bytes_to_unicode

from ..errors import InputError, one_line
from ..utils.hub_reach import nowhere
from .files import local_path

END_OF_TEXT = "<|endoftext|>"
PAD = "<|pad|>"
NO_MAX_LENGTH = int(1e30)  # what transformers writes for "no limit": a recurrent model has none


def byte_tokenizer(model_max_length: int = NO_MAX_LENGTH) -> PreTrainedTokenizerFast:
    """Return the tokenizer whose ids 0..255 are the UTF-8 bytes of the text.

    `<|endoftext|>` is 256 (eos and bos) and `<|pad|>` is 257, so `len(tokenizer)` is 258; padding is on the left.
    Decoding is exact; bytes that are not valid UTF-8 decode to U+FFFD. A text that spells a special token becomes
    that token's id unless it is encoded with `split_special_tokens=True`.

    Args:
        model_max_length: the length past which the tokenizer warns; none by default.
    """
    vocab = {character: byte for byte, character in bytes_to_unicode().items()}
    backend = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token=END_OF_TEXT,
        eos_token=END_OF_TEXT,
        pad_token=PAD,
        padding_side="left",
        model_max_length=model_max_length,
        clean_up_tokenization_spaces=False,
    )


def load_tokenizer(name_or_path: str | os.PathLike) -> PreTrainedTokenizerBase:
    """Return the tokenizer of that name: `"byte"` for `byte_tokenizer()`, else a folder or a Hub id.

    It adds no special tokens to a text, because training does not; see [`without_special_tokens`]. It needs no pad token.
    Code that comes with a tokenizer is never run.

    Raises:
        InputError: if it cannot be found or loaded, has no eos token to end documents with, or adds special tokens that it
            cannot be saved without.
    """
    if name_or_path == "byte":
        return byte_tokenizer()
    if not isinstance(name_or_path, (str, os.PathLike)) or not str(name_or_path):
        raise InputError(f'{name_or_path!r} is not a tokenizer: pass "byte", a folder or the id of a Hub model')
    folder = local_path(name_or_path)
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(folder or name_or_path), trust_remote_code=False)
    except Exception as error:  # of any type: tokenizers raises bare ones for a damaged tokenizer.json
        reason = one_line(error)[:200]
        if "trust_remote_code" in str(error):
            remedy, reason = "convert it to a tokenizer.json", "it needs custom code, which is not run"
        elif folder is None:
            name = str(name_or_path)
            raise InputError(f'{nowhere(name, error)}: pass "byte", a folder or the id of a Hub model') from error
        elif (folder / "preprocessor_config.json").is_file():
            remedy = "it belongs to a model trained on images, so draw with smt-hf generate"
        else:
            remedy = "save one there with tokenizer.save_pretrained"
        raise InputError(f"cannot load a tokenizer from {str(name_or_path)!r}: {remedy} ({reason})") from error
    if tokenizer.eos_token_id is None:
        raise InputError(
            f"the tokenizer {str(name_or_path)!r} has no eos token to end documents with: set its eos_token and save it"
        )
    return without_special_tokens(tokenizer)


def without_special_tokens(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """Return a tokenizer that adds no special tokens to a text, as in training, even after it is saved and loaded again.

    It is the tokenizer itself if it adds none, otherwise a `PreTrainedTokenizerFast` with the same tokens, chat template and
    decoding: many classes, such as Bert's, add theirs again whenever they are loaded.

    Raises:
        InputError: for a tokenizer that cannot be saved that way.
    """
    if not isinstance(tokenizer, PreTrainedTokenizerBase):  # an image processor, which has no special tokens
        return tokenizer
    if len(tokenizer("")["input_ids"]) == len(tokenizer("", add_special_tokens=False)["input_ids"]):
        return tokenizer
    plain = None
    if isinstance(tokenizer, PreTrainedTokenizerFast):
        kept = ("chat_template", "model_max_length", "padding_side", "truncation_side", "name_or_path")
        kept += ("clean_up_tokenization_spaces", "extra_special_tokens")
        plain = PreTrainedTokenizerFast(
            tokenizer_object=tokenizer.backend_tokenizer,
            **{name: getattr(tokenizer, name) for name in kept},
            **tokenizer.special_tokens_map,
        )
        plain.backend_tokenizer.post_processor = _offsets_only(tokenizer.backend_tokenizer.post_processor)
    some = list(range(min(len(tokenizer), 1000)))
    if plain is None or plain.decode(some) != tokenizer.decode(some) or len(plain) != len(tokenizer):
        raise InputError(
            f"the tokenizer {tokenizer.name_or_path!r} ({type(tokenizer).__name__}) adds special tokens to every text, "
            "which training does not, and cannot be saved without them: use another tokenizer"
        )
    return plain


def _offsets_only(processor) -> processors.PostProcessor:
    """A post-processor without its special tokens; it still corrects the offsets of byte-level tokens."""
    state = json.loads(processor.__getstate__())
    steps = state["processors"] if state["type"] == "Sequence" else [state]
    kept = [step for step in steps if step["type"] in ("ByteLevel", "RobertaProcessing")]
    byte_level = [
        processors.ByteLevel(add_prefix_space=step["add_prefix_space"], trim_offsets=step["trim_offsets"])
        for step in kept
    ]
    template = processors.TemplateProcessing(single="$A:0", pair="$A:0 $B:1", special_tokens=[])
    return processors.Sequence([*byte_level, template])


def is_byte_tokenizer(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether the tokenizer encodes as `byte_tokenizer()` does, judged by its content (a reloaded copy counts)."""
    if not isinstance(tokenizer, PreTrainedTokenizerFast) or tokenizer.eos_token != END_OF_TEXT:
        return False
    return len(tokenizer) == 258 and tokenizer_content(tokenizer) == tokenizer_content(byte_tokenizer())


def tokenizer_content(tokenizer: PreTrainedTokenizerBase) -> dict:
    """Return, as JSON-ready values, what determines the ids of a text without special tokens."""
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        return {"class": type(tokenizer).__name__, "vocab": tokenizer.get_vocab()}
    backend = json.loads(tokenizer.backend_tokenizer.to_str())
    return {key: backend[key] for key in ("added_tokens", "normalizer", "pre_tokenizer", "model", "decoder")}
