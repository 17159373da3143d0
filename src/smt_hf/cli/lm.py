"""`smt-hf lm`: train the Transformer language model that a teacher is built on."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from ..checkpoints import check_vocabulary, load_backbone
from ..data import DataOptions, ProcessingOptions
from ..errors import InputError
from ..language_models import new_language_model
from ..training import LmTrainer, LmTrainingArguments
from .options import RunOptions, processing_for
from .parsing import Command, parse
from .run import REQUIRED, train


@dataclass
class LmSizes(ProcessingOptions):
    """The sizes of a new language model, and its tokenizer or image options."""

    _argument_group_name = "model"

    model_type: str = field(
        default="llama",
        metadata={"help": "Model type of a new model in transformers, such as llama, qwen3 or gpt2."},
    )
    hidden_size: int = field(default=256, metadata={"help": "Width of a new model."})
    num_layers: int = field(default=8, metadata={"help": "Layers of a new model."})
    num_attention_heads: int = field(default=8, metadata={"help": "Attention heads of a new model."})
    intermediate_size: int | None = field(
        default=None, metadata={"help": "Width of a new model's feed-forward layers; 4 x hidden_size by default."}
    )
    initializer_range: float = field(default=0.02, metadata={"help": "Standard deviation of a new model's weights."})
    dropout: float = field(
        default=0.0, metadata={"help": "Dropout of a new model during training, wherever its type has dropout."}
    )

    def new_model(self, tokenizer, length: int):
        """Makes a model of these sizes with new weights.

        Args:
            tokenizer: the tokenizer that the model is for.
            length: number of tokens that it will read at once.

        Raises:
            InputError: for a model type that transformers does not know, or sizes that cannot work.
        """
        if self.hidden_size % (2 * self.num_attention_heads):
            raise InputError(
                f"hidden_size={self.hidden_size} is not divisible by num_attention_heads={self.num_attention_heads} into even head "
                f"sizes: choose a multiple of {2 * self.num_attention_heads}"
            )
        sizes = {
            "hidden_size": self.hidden_size,
            "num_hidden_layers": self.num_layers,
            "num_attention_heads": self.num_attention_heads,
            "num_key_value_heads": self.num_attention_heads,
            "head_dim": self.hidden_size // self.num_attention_heads,
            "intermediate_size": self.intermediate_size or 4 * self.hidden_size,
            "initializer_range": self.initializer_range,
            "max_position_embeddings": length + 1,  # with the bos token
            "vocab_size": len(tokenizer),
        }
        ids = {name: getattr(tokenizer, name) for name in ("pad_token_id", "bos_token_id", "eos_token_id")}
        return new_language_model(self.model_type, self.dropout, **sizes, **ids)


@dataclass
class LmOptions(RunOptions, DataOptions, LmSizes):
    """The language model to train, a new or a saved one, and the data to train it on."""

    model: str | None = field(
        default=None,
        metadata={"help": "Folder or Hub id of a causal language model to start from instead of new weights."},
    )


COMMAND = Command(
    name="lm",
    kinds=[LmOptions, LmTrainingArguments],
    description="""Train a Transformer language model for `smt-hf smt --backbone` to build a teacher on. The output folder loads with
AutoModelForCausalLM.""",
    example=r"""example:
  smt-hf lm --config configs/tinystories_cpu/lm.yaml \
      --dataset stories.txt --output_dir runs/lm
  smt-hf smt --backbone runs/lm --config configs/tinystories_cpu/teacher.yaml \
      --dataset stories.txt --output_dir runs/teacher
  smt-hf dmt runs/teacher --config configs/tinystories_cpu/student.yaml \
      --dataset stories.txt --output_dir runs/student""",
    positionals=["model"],
    required=REQUIRED,
)


def main(argv: Sequence[str]) -> LmTrainer:
    """Runs the command and returns the trainer."""
    options, arguments = parse(COMMAND, argv)
    return train("lm", options, arguments, [options.model], build)


def build(options: LmOptions, arguments: LmTrainingArguments) -> LmTrainer:
    """Builds the trainer of a language model, with its data."""
    model = load_backbone(options.model) if options.model else None
    tokenizer = processing_for(options)
    if model is None:
        model = options.new_model(tokenizer, arguments.window_length)
    check_vocabulary(model, tokenizer)
    datasets = options.datasets(tokenizer, arguments.window_length, arguments)
    return LmTrainer(model=model, args=arguments, processing_class=tokenizer, **datasets)
