"""From options to datasets: the text or images that a command reads, and the rows that a trainer takes from them."""

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import ClassVar

from torch.utils.data import Subset

from ..errors import InputError
from ..models.image_processing_smt import SmtImageProcessor
from .encoding import num_cores
from .image_opening import image_kind, open_images
from .image_source import ImageSource
from .images import ImageRows, cached_images, image_key, processor_for
from .merging import merge_shards
from .shards import Shard
from .source_kinds import SourceKind, text_kind
from .text_stream import TextStream
from .token_cache import TokenCache, cached_tokens, text_key
from .tokenizer import load_tokenizer
from .windows import TokenWindows, check_window_length

# What the options for reading data are for, in the words of messages.
MEANT_FOR = {
    "split": "data with splits",
    "eval_split": "data with splits",
    "reference_split": "data with splits",
    "dataset_config": "a folder or Hub dataset with configurations",
    "text_column": "rows of text",
    "separator": ".txt files",
    "streaming": "text to train on or a Hub dataset",
    "image_column": "rows with images",
    "label_column": "rows with images",
    "holdout": "images without splits",
    "num_proc": "text that is encoded into a token cache",
    "num_eval_windows": "validation data",
    "num_readers": "streamed text",
    "shuffle_buffer_size": "streamed text",
}


@dataclass
class TextOptions:
    """Where to read text from, or images if the model is trained on images."""

    _argument_group_name = "data"
    # Options from a recipe, which may be used with other data than it was written for: they count only where the data honour them.
    of_recipe: ClassVar[frozenset[str]] = frozenset()

    dataset: str | None = field(
        default=None,
        metadata={
            "help": "Text: a .txt, .json, .jsonl or .parquet file, a folder of these, or a Hub dataset id. Images: a folder of "
            "them, an .npz or .parquet file, a Hub dataset id, or 'digits'."
        },
    )
    dataset_config: str | None = field(default=None, metadata={"help": "Configuration of the Hub dataset."})
    split: str = field(default="train", metadata={"help": "Split of the dataset; a single file has none."})
    text_column: str = field(default="text", metadata={"help": "Column that holds the text."})
    separator: str = field(default="<|endoftext|>", metadata={"help": "Text between the documents of a .txt file."})
    streaming: bool = field(
        default=False,
        metadata={
            "help": "Stream the text from the Hub or from files, without holding all of it; max_steps or max_train_seconds ends a "
            "training. Validation text and images are still kept whole, but read while they download."
        },
    )
    max_documents: int | None = field(
        default=None, metadata={"help": "Read at most this many documents or images of the dataset."}
    )
    image_column: str | None = field(
        default=None, metadata={"help": "Column that holds the images; by default, the first of type Image."}
    )
    label_column: str | None = field(
        default=None,
        metadata={"help": "Column that holds the image classes; by default, the first of type ClassLabel."},
    )
    holdout: int | None = field(
        default=None,
        metadata={
            "help": "For images without splits: put one of every N into the split 'validation', the others into 'train'."
        },
    )
    num_proc: int | None = field(
        default=None, metadata={"help": "Processes that encode text for its token cache; one per core by default."}
    )
    cache_dir: str | None = field(
        default=None,
        metadata={"help": "Folder for token caches; by default $SMT_HF_CACHE, $HF_HOME/smt_hf or ~/.cache/smt_hf."},
    )

    def tokens(self, tokenizer, shard: Shard | None = None) -> TokenCache:
        """The text of `dataset` as tokens, or its images if the tokenizer is an [`SmtImageProcessor`]; all of it or one shard.

        Raises:
            InputError: if there is no dataset, or it cannot be read.
        """
        if self.dataset is None:
            raise InputError("dataset is missing: pass a text file or a Hub dataset id")
        return self._read(self.dataset, tokenizer, shard, split=self.split, max_documents=self.max_documents)

    def merged(self, tokenizer, num_shards: int) -> TokenCache:
        """Merges shards into what [`tokens`] returns; raises as [`merge_shards`] does."""
        if isinstance(tokenizer, SmtImageProcessor):
            key = image_key(self.images(), tokenizer, self.max_documents)
        else:
            limits = {"split": self.split, "max_documents": self.max_documents}
            key = text_key(self.dataset, tokenizer, **self._reading(), **limits)
        return merge_shards(key, num_shards, self.cache_dir)

    def tokens_of(self, source: str, split: str, tokenizer) -> TokenCache:
        """Like [`tokens`], for another source or split."""
        return self._read(source, tokenizer, split=split)

    def images(self, source=None, split: str | None = None) -> ImageSource:
        """The images of `dataset` or of another source, not yet encoded; raises as [`open_images`] does."""
        source = source or self.dataset
        options = {
            "split": split or self.split,
            "holdout": self.holdout,
            "image_column": self.image_column,
            "label_column": self.label_column,
            "config_name": self.dataset_config,
            "streaming": self.streaming,
        }
        honours = image_kind(source).honours
        return open_images(source, **{name: value for name, value in options.items() if name in honours})

    def sources(self, tokenizer) -> list[tuple[str, str, str]]:
        """The data to read: each source, its split, and the option that names the split."""
        return [(self.dataset, self.split, "split")]

    def kind_of(self, source: str, split: str, tokenizer) -> SourceKind:
        """The kind of a source when it is read with this tokenizer or [`SmtImageProcessor`]."""
        if isinstance(tokenizer, SmtImageProcessor):
            return image_kind(source)
        return text_kind(source, split, self.dataset_config)

    def check_honoured(self, tokenizer, streams: bool = False) -> None:
        """Checks that the data honour every option for reading them that was given; those of a recipe are not checked.

        Args:
            tokenizer: the model's tokenizer or image processor.
            streams: whether `dataset` is streamed text.

        Raises:
            InputError: naming all options that none of the data honour, and the data.
        """
        sources = self.sources(tokenizer)
        honoured, kinds = set(), {}
        if streams:
            honoured |= {"streaming", "num_readers", "shuffle_buffer_size"}
        if not isinstance(tokenizer, SmtImageProcessor) and (not streams or len(sources) > 1):
            honoured.add("num_proc")
        if len(sources) > 1:
            honoured.add("num_eval_windows")
        for source, split, split_option in sources:
            kind = kinds[source] = self.kind_of(source, split, tokenizer)
            honoured |= {"dataset_config" if name == "config_name" else name for name in kind.honours - {"split"}}
            if "split" in kind.honours or split == "train":  # data without splits is all "train"
                honoured.add(split_option)
        ignored = {
            name: getattr(self, name)
            for name in MEANT_FOR
            if name not in honoured | self.of_recipe
            and getattr(self, name, None) != getattr(type(self), name, None)  # the default
        }
        if ignored:
            groups = {}
            for name, value in ignored.items():
                groups.setdefault(MEANT_FOR[name], []).append(f"{name}={value!r}")
            given = ", ".join(
                f"{', '.join(words)} {'is' if len(words) == 1 else 'are'} for {purpose}"
                for purpose, words in groups.items()
            )
            found = " and ".join(f"{str(source)!r} is {kind.name}" for source, kind in kinds.items())
            remedy = "pass eval_dataset, or " if "eval_split" in ignored and len(sources) == 1 else ""
            raise InputError(f"{given}, but {found}: {remedy}leave {'it' if len(ignored) == 1 else 'them'} out")

    def _read(self, source, tokenizer, shard: Shard | None = None, **options) -> TokenCache:
        if isinstance(tokenizer, SmtImageProcessor):
            images = self.images(source, options["split"])
            return cached_images(images, tokenizer, self.cache_dir, options.get("max_documents"), shard)
        num_proc = self.num_proc or num_cores()
        return cached_tokens(source, tokenizer, self.cache_dir, num_proc, shard, **self._reading(), **options)

    def _reading(self) -> dict:
        """The options for reading any text."""
        return {
            "config_name": self.dataset_config,
            "text_column": self.text_column,
            "separator": self.separator,
            "streaming": self.streaming,
        }


@dataclass
class ProcessingOptions:
    """The tokenizer of a new model, or how it sees images."""

    _argument_group_name = "model"

    tokenizer: str = field(
        default="byte", metadata={"help": "'byte' (256 bytes and two special ids), or a tokenizer's folder or Hub id."}
    )
    image_size: int | None = field(
        default=None, metadata={"help": "Learn images of this height and width, pixel by pixel, instead of text."}
    )
    num_levels: int = field(default=8, metadata={"help": "Grey levels per pixel."})
    class_conditional: bool = field(
        default=False,
        metadata={"help": "Begin every image with the token of its class, so that you can choose the class to draw."},
    )

    def new_processing(self, images: Callable[[], ImageSource]):
        """Makes the tokenizer or, with `image_size`, the image processor.

        Args:
            images: opens the images; not called for a model of text.

        Raises:
            InputError: as [`load_tokenizer`] and [`processor_for`] do, for image options without `image_size`, and for a
                tokenizer together with it.
        """
        if self.image_size is not None:
            if self.tokenizer != ProcessingOptions.tokenizer:
                raise InputError(
                    f"tokenizer={self.tokenizer!r} is for text, but with image_size={self.image_size} the model learns images: "
                    "leave one out"
                )
            return processor_for(images(), self.class_conditional, size=self.image_size, num_levels=self.num_levels)
        if given := self.of_images():
            raise InputError(
                f"{', '.join(given)}: without image_size, the model learns text: pass image_size, or leave this out"
            )
        return load_tokenizer(self.tokenizer)

    def of_images(self) -> list[str]:
        """The image options that were given, with their values."""
        of_images = (each for each in fields(ProcessingOptions) if each.name != "tokenizer")
        return [f"{each.name}={value}" for each in of_images if (value := getattr(self, each.name)) != each.default]


@dataclass
class DataOptions(TextOptions):
    """The data to train on, and the data to evaluate on."""

    _argument_group_name = "data"

    eval_dataset: str | None = field(
        default=None,
        metadata={"help": "Validation text or images; with only eval_split, that split of the dataset."},
    )
    eval_split: str | None = field(default=None, metadata={"help": "Split of the validation data."})
    num_eval_windows: int = field(
        default=64, metadata={"help": "Windows in each evaluation during training, spread evenly over the data."}
    )

    num_readers: int | None = field(
        default=None,
        metadata={
            "help": "Readers that share a streamed text: a multiple of processes x dataloader_num_workers, which is the default. "
            "A resumed run needs the same number, with any processes and workers."
        },
    )
    shuffle_buffer_size: int = field(
        default=1024,
        metadata={
            "help": "Windows of a streamed text that each reader shuffles (documents with carry_memory); 1: no shuffling."
        },
    )

    def validation(self, tokenizer) -> tuple[str, str, str] | None:
        """The validation data as one of [`sources`], or `None` if there is none.

        `eval_split` alone does not count for data without splits, such as a single file: it would select the training text.
        """
        if self.eval_dataset is None:
            if self.eval_split is None:
                return None
            if "split" not in self.kind_of(self.dataset, self.eval_split, tokenizer).honours:
                return None
        split = (self.split, "split") if self.eval_split is None else (self.eval_split, "eval_split")
        return self.eval_dataset or self.dataset, *split

    def sources(self, tokenizer) -> list[tuple[str, str, str]]:
        validation = self.validation(tokenizer)
        return super().sources(tokenizer) + ([] if validation is None else [validation])

    def eval_tokens(self, tokenizer) -> TokenCache | None:
        """The validation data as tokens, or `None` if there is none; see [`validation`]."""
        validation = self.validation(tokenizer)
        return None if validation is None else self.tokens_of(*validation[:2], tokenizer)

    def datasets(self, tokenizer, window_length: int, arguments) -> dict:
        """The `train_dataset` and `eval_dataset` of a trainer; the latter is `None` without validation data.

        If the context is as long as an image, every image is a row; otherwise images are read in windows, as text is.

        Args:
            tokenizer: the model's tokenizer or image processor.
            window_length: tokens of a window.
            arguments: the trainer's arguments, for its seeds and its evaluation strategy.

        Raises:
            InputError: if the text is missing or too short, if evaluations were asked for without validation text, or if the data do
                not honour an option.
        """
        streams = self.streaming and not isinstance(tokenizer, SmtImageProcessor)
        self.check_honoured(tokenizer, streams)
        with arguments.main_process_first(desc="reading the text"):
            train, validation = None if streams else self.tokens(tokenizer), self.eval_tokens(tokenizer)
        rows = (
            self.stream(tokenizer, window_length, arguments) if streams else training_rows(train, tokenizer, arguments)
        )
        datasets = {"train_dataset": rows, "eval_dataset": None}
        if validation is not None:
            if isinstance(rows, ImageRows):
                windows = ImageRows(validation)
            else:
                check_window_length(validation, window_length, "the validation data", **lengths_of(arguments))
                windows = TokenWindows(validation, window_length, random_offset=False)
            num_windows = min(self.num_eval_windows, len(windows))
            spread = [number * len(windows) // num_windows for number in range(num_windows)]
            datasets["eval_dataset"] = Subset(windows, spread)
        elif arguments.eval_strategy != "no":
            raise InputError(
                f"eval_strategy={arguments.eval_strategy.value} needs validation text: pass --eval_dataset"
            )
        return datasets

    def stream(self, tokenizer, window_length: int, arguments) -> TextStream:
        """The text of `dataset` as a stream.

        Raises:
            InputError: if there is none, it cannot be read, or the training would have no end.
        """
        if self.dataset is None:
            raise InputError("dataset is missing: pass a text file or a Hub dataset id")
        if arguments.max_steps <= 0:
            raise InputError("streaming has no last window: pass max_steps or max_train_seconds")
        at_once = arguments.world_size * max(arguments.dataloader_num_workers, 1)
        return TextStream(
            self.dataset,
            tokenizer,
            window_length,
            seed=arguments.order_seed,
            num_readers=self.num_readers or at_once,
            shuffle_buffer_size=self.shuffle_buffer_size,
            split=self.split,
            text_column=self.text_column,
            config_name=self.dataset_config,
            separator=self.separator,
            max_documents=self.max_documents,
        )


def training_rows(cache: TokenCache, tokenizer, arguments) -> ImageRows | TokenWindows:
    """The rows that a trainer takes from a corpus: images if the context is as long as they are, windows otherwise.

    Raises:
        InputError: if the corpus is shorter than one window.
    """
    if isinstance(tokenizer, SmtImageProcessor) and arguments.context_length >= tokenizer.sequence_length:
        return ImageRows(cache)
    check_window_length(cache, arguments.window_length, "the training data", **lengths_of(arguments))
    return TokenWindows(cache, arguments.window_length, seed=arguments.order_seed)


def lengths_of(arguments) -> dict[str, int]:
    """The arguments of a trainer that say how long its windows are."""
    return {name: getattr(arguments, name) for name in ("context_length", "horizon") if hasattr(arguments, name)}
