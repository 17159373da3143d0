"""From options to datasets: the text that a command reads, and the windows that a trainer takes from it."""

from dataclasses import dataclass, field

from torch.utils.data import Subset

from ..errors import InputError
from .files import local_path
from .token_cache import TokenCache, cached_tokens
from .windows import TokenWindows


@dataclass
class TextOptions:
    """Where a text comes from."""

    _argument_group_name = "data"

    dataset: str | None = field(
        default=None,
        metadata={"help": "Text: a .txt, .jsonl or .parquet file, a folder of these, or a Hub dataset id."},
    )
    dataset_config: str | None = field(default=None, metadata={"help": "Configuration of the Hub dataset."})
    split: str = field(default="train", metadata={"help": "Split of the dataset; a single file has none."})
    text_column: str = field(default="text", metadata={"help": "Column that holds the text."})
    separator: str = field(default="<|endoftext|>", metadata={"help": "Text between the documents of a .txt file."})
    streaming: bool = field(default=False, metadata={"help": "Read a Hub dataset while it downloads."})
    max_documents: int | None = field(
        default=None, metadata={"help": "Read at most this many documents of the dataset."}
    )
    cache_dir: str | None = field(
        default=None, metadata={"help": "Folder of token caches; $SMT_HF_CACHE or ~/.cache/smt_hf by default."}
    )

    def tokens(self, tokenizer) -> TokenCache:
        """The text of `dataset` as tokens.

        Raises:
            InputError: if there is no dataset, or it cannot be read.
        """
        if self.dataset is None:
            raise InputError("dataset is missing: pass a text file or a Hub dataset id")
        return self._read(self.dataset, tokenizer, split=self.split, max_documents=self.max_documents)

    def _read(self, source, tokenizer, **options) -> TokenCache:
        return cached_tokens(
            source,
            tokenizer,
            self.cache_dir,
            config_name=self.dataset_config,
            text_column=self.text_column,
            separator=self.separator,
            streaming=self.streaming,
            **options,
        )


@dataclass
class DataOptions(TextOptions):
    """What a training reads, and what it is evaluated on."""

    _argument_group_name = "data"

    eval_dataset: str | None = field(
        default=None,
        metadata={"help": "Validation text; with eval_split alone, that split of the dataset."},
    )
    eval_split: str | None = field(default=None, metadata={"help": "Split of the validation text."})
    num_eval_windows: int = field(
        default=64, metadata={"help": "Windows of every evaluation during training, spread evenly over the text."}
    )

    def eval_tokens(self, tokenizer) -> TokenCache | None:
        """The validation text as tokens, or `None` if there is none.

        A single training file has no splits: `eval_split` alone would measure on the training text.
        """
        if self.eval_dataset is None:
            if self.eval_split is None or ((path := local_path(self.dataset)) is not None and path.is_file()):
                return None
        return self._read(self.eval_dataset or self.dataset, tokenizer, split=self.eval_split or self.split)

    def datasets(self, tokenizer, window_length: int, arguments) -> dict:
        """The `train_dataset` and `eval_dataset` of a trainer; the latter is `None` without validation text.

        Args:
            tokenizer: the model's.
            window_length: tokens of a window.
            arguments: the trainer's, for its seeds and its evaluation strategy.

        Raises:
            InputError: if the text is missing or too short, or evaluations were asked for without validation text.
        """
        with arguments.main_process_first(desc="reading the text"):
            train, validation = self.tokens(tokenizer), self.eval_tokens(tokenizer)
        seed = arguments.seed if arguments.data_seed is None else arguments.data_seed
        datasets = {"train_dataset": TokenWindows(train, window_length, seed=seed), "eval_dataset": None}
        if validation is not None:
            windows = TokenWindows(validation, window_length, random_offset=False)
            num_windows = min(self.num_eval_windows, len(windows))
            spread = [number * len(windows) // num_windows for number in range(num_windows)]
            datasets["eval_dataset"] = Subset(windows, spread)
        elif arguments.eval_strategy != "no":
            raise InputError(f"eval_strategy={arguments.eval_strategy!s} needs validation text: pass --eval_dataset")
        return datasets
