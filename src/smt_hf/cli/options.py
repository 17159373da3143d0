"""Options that several commands share: the data, and the sizes of a new model."""

from dataclasses import dataclass, field

from huggingface_hub.errors import StrictDataclassError

from ..data import TokenCache, TokenWindows, cached_tokens
from ..data.files import local_path
from ..errors import InputError, one_line
from ..models import SmtConfig, SmtRnnConfig, SmtTeacherConfig


@dataclass
class DataOptions:
    """Where the text comes from."""

    _argument_group_name = "data"

    dataset: str | None = field(
        default=None,
        metadata={"help": "Training text: a .txt, .jsonl or .parquet file, a folder of these, or a Hub data set id."},
    )
    dataset_config: str | None = field(default=None, metadata={"help": "Configuration of the Hub data set."})
    train_split: str = field(default="train", metadata={"help": "Split to train on."})
    eval_dataset: str | None = field(
        default=None, metadata={"help": "Validation text; the same data set's eval_split when only that is given."}
    )
    eval_split: str | None = field(default=None, metadata={"help": "Split of the validation text."})
    text_column: str = field(default="text", metadata={"help": "Column that holds the text."})
    separator: str = field(default="<|endoftext|>", metadata={"help": "What stands between documents in .txt files."})
    streaming: bool = field(default=False, metadata={"help": "Read a Hub data set while it downloads."})
    max_documents: int | None = field(default=None, metadata={"help": "Read so many training documents at most."})
    max_eval_windows: int = field(default=64, metadata={"help": "Windows of every evaluation during training."})
    cache_dir: str | None = field(
        default=None, metadata={"help": "Where token caches are kept; $SMT_HF_CACHE or ~/.cache/smt_hf by default."}
    )

    def train_tokens(self, tokenizer) -> TokenCache:
        """The training text as tokens.

        Raises:
            InputError: if there is none.
        """
        if self.dataset is None:
            raise InputError("dataset is missing: give --dataset a text file or a Hub data set id")
        return self._tokens(self.dataset, tokenizer, split=self.train_split, max_documents=self.max_documents)

    def eval_tokens(self, tokenizer) -> TokenCache | None:
        """The validation text as tokens, or `None` if no validation text was named.

        A single training file has no splits: `eval_split` alone would measure on what was trained.
        """
        if self.eval_dataset is None:
            if self.eval_split is None or ((path := local_path(self.dataset)) is not None and path.is_file()):
                return None
        split = self.eval_split or self.train_split
        return self._tokens(self.eval_dataset or self.dataset, tokenizer, split=split)

    def _tokens(self, source, tokenizer, **options) -> TokenCache:
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

    def datasets(self, tokenizer, window_length: int, arguments) -> dict:
        """`train_dataset` and `eval_dataset` of a trainer, the latter `None` if no validation text was named."""
        with arguments.main_process_first(desc="reading the text"):
            train, validation = self.train_tokens(tokenizer), self.eval_tokens(tokenizer)
        seed = arguments.seed if arguments.data_seed is None else arguments.data_seed
        datasets = {"train_dataset": TokenWindows(train, window_length, seed=seed), "eval_dataset": None}
        if validation is not None:
            windows = TokenWindows(validation, window_length, random_offset=False)
            datasets["eval_dataset"] = EvenlySpaced(windows, self.max_eval_windows)
        elif arguments.eval_strategy != "no":
            raise InputError(f"eval_strategy={arguments.eval_strategy!s} needs validation text: give --eval_dataset")
        return datasets


class EvenlySpaced:
    """At most `num_items` items of a data set, spread evenly over it."""

    def __init__(self, dataset, num_items: int):
        self.dataset = dataset
        self.num_items = min(num_items, len(dataset))

    def __len__(self) -> int:
        return self.num_items

    def __getitem__(self, index: int):
        return self.dataset[range(self.num_items)[index] * len(self.dataset) // self.num_items]


@dataclass
class StudentOptions:
    """The sizes of a new student."""

    _argument_group_name = "model"

    tokenizer: str = field(
        default="byte", metadata={"help": "'byte' (256 bytes and two special ids), or a tokenizer's folder or Hub id."}
    )
    hidden_size: int = field(default=256, metadata={"help": "Width D."})
    num_memory_tokens: int = field(default=16, metadata={"help": "Memory tokens K."})
    num_readout_layers: int = field(
        default=4,
        metadata={"help": "Layers of the student's readout, which is the teacher's decoder where there is one."},
    )
    num_updater_layers: int = field(default=8, metadata={"help": "Layers of the student's updater."})
    num_attention_heads: int = field(default=8, metadata={"help": "Attention heads."})
    intermediate_size: int | None = field(default=None, metadata={"help": "Feed-forward width; 4 D by default."})
    hidden_act: str = field(default="gelu", metadata={"help": "Activation of the feed-forward layers."})
    cell_type: str = field(
        default="transformer", metadata={"help": "The student's updater: transformer, mlp, elman, gru or lstm."}
    )
    cell_input: str = field(
        default="memory",
        metadata={
            "help": "What elman, gru and lstm layers read: 'memory' (the token and the whole memory) or 'token' (as "
            "in torch's own stacks)."
        },
    )
    memory_normalization: str = field(default="rms", metadata={"help": "'rms' or 'none'."})
    qk_norm: bool = field(default=False, metadata={"help": "RMS-normalise queries and keys."})
    zero_init_residual: bool = field(default=False, metadata={"help": "Start every block as the identity."})
    initializer_range: float = field(default=0.02, metadata={"help": "Standard deviation of the initial weights."})

    def student_config(self, tokenizer) -> SmtRnnConfig:
        """The configuration of a new student for this tokenizer.

        Raises:
            InputError: if the sizes cannot work.
        """
        try:
            return SmtRnnConfig(
                **self._shared(tokenizer),
                num_readout_layers=self.num_readout_layers,
                cell_type=self.cell_type,
                cell_input=self.cell_input,
                num_updater_layers=self.num_updater_layers,
            )
        except StrictDataclassError as error:
            raise InputError(one_line(error)) from error

    def _shared(self, tokenizer) -> dict:
        """What teacher and student have alike."""
        return {
            "vocab_size": len(tokenizer),
            "hidden_size": self.hidden_size,
            "num_memory_tokens": self.num_memory_tokens,
            "num_attention_heads": self.num_attention_heads,
            "intermediate_size": self.intermediate_size,
            "hidden_act": self.hidden_act,
            "memory_normalization": self.memory_normalization,
            "qk_norm": self.qk_norm,
            "zero_init_residual": self.zero_init_residual,
            "initializer_range": self.initializer_range,
            "pad_token_id": tokenizer.pad_token_id,
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
        }


@dataclass
class ModelOptions(StudentOptions):
    """The sizes of a new teacher and student."""

    model: str | None = field(
        default=None, metadata={"help": "SMT checkpoint to start from instead of new weights; the sizes are its own."}
    )
    num_encoder_layers: int = field(default=8, metadata={"help": "Layers of the teacher's encoder."})
    encoder_attention: str = field(
        default="causal", metadata={"help": "'causal' (dense SMT) or 'bidirectional' (the paper's encoder)."}
    )

    def config(self, tokenizer) -> SmtConfig:
        """The configuration of a new model for this tokenizer.

        Raises:
            InputError: if the sizes cannot work.
        """
        try:
            teacher = SmtTeacherConfig(
                **self._shared(tokenizer),
                num_encoder_layers=self.num_encoder_layers,
                num_decoder_layers=self.num_readout_layers,
                encoder_attention=self.encoder_attention,
            )
            return SmtConfig(teacher_config=teacher, student_config=self.student_config(tokenizer))
        except StrictDataclassError as error:
            raise InputError(one_line(error)) from error


@dataclass
class RunOptions:
    """How a training run treats its output folder."""

    _argument_group_name = "run"

    overwrite: bool = field(default=False, metadata={"help": "Start over in an output_dir that holds an earlier run."})
    resume: bool = field(default=False, metadata={"help": "Go on from the last checkpoint in output_dir."})
    num_threads: int | None = field(
        default=None, metadata={"help": "CPU threads of torch; its own choice by default."}
    )
