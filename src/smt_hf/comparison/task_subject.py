"""A comparison's synthetic task: its rows, of several lengths."""

import zlib

from ..errors import InputError
from ..evaluation import evaluate_on_task
from ..tasks import TaskDataset
from .checks import is_number
from .measures import gradient_norms, measured
from .stages import Stage
from .trace import even_shares

EPOCH_ROWS = 1 << 15  # rows of a task before new ones are drawn
TRACE_ROWS = 128
DECIDED = {"carry_memory": "the rows of a task are not running text"}


class TaskSubject:
    """The rows of a comparison's task. Its variants are the lengths of the rows.

    Args:
        comparison: the recipe.
    """

    variant_name = "length"
    decided = DECIDED
    trace_shares = staticmethod(even_shares)

    def __init__(self, comparison):
        self.comparison = comparison

    @property
    def variants(self) -> list[int]:
        """The numbers of tokens per row."""
        return self.comparison.lengths

    def check(self, stages: list[Stage]) -> None:
        """Checks that the task can be made for every stage, length and evaluation. Raises an [`InputError`] if not."""
        comparison = self.comparison
        for stage in stages:
            if stage.trainer == "lm" or stage.backbone is not None:
                raise InputError(f"{stage}: language models are for datasets: leave it out")
        for length in comparison.lengths:
            comparison.load_task(length)
        self._check_length("gradient_length", comparison.gradient_length)
        for length in comparison.lengths:
            for factor in comparison.eval_factors:
                self._check_length(f"eval_factors: {factor} times length {length}", length * factor)
            for stage in stages:
                comparison.stage_task(stage, length)

    def _check_length(self, where: str, length: int) -> None:
        """Checks a length. An error's message begins with `where` the length comes from."""
        try:
            self.comparison.load_task(length)
        except InputError as error:
            raise InputError(f"{where}: {error}") from error

    def open(self) -> None:
        """Checks what is only known once the data are read: nothing, since they are drawn."""

    def token_ids(self, length: int) -> dict:
        """Fields of a model's configuration: the number of ids, and the special ones."""
        return {"vocab_size": self.comparison.load_task(length).vocab_size}

    def lengths(self, stage: Stage, length: int, chosen: dict) -> dict:
        """Arguments of a stage that follow from the length of its rows, unless the recipe sets them."""
        rows = stage.length or length
        lengths = {"context_length": rows}
        if stage.trainer == "smt":
            lengths |= {"horizon": rows}
        if stage.trainer == "dmt":
            segment = chosen.get("segment_length", 1)
            fits = is_number(segment, int) and 1 <= segment <= rows
            lengths |= {"rollout_length": rows - rows % segment if fits else rows}
        return lengths

    def limits(self, stage: Stage, length: int, chosen: dict) -> dict:
        """Arguments that the recipe gives for all lengths, lowered to what rows of this length hold: `num_transitions`, unless the
        stage has its own."""
        segment, rows = chosen.get("segment_length", 1), chosen.get("context_length", stage.length or length)
        transitions = chosen.get("num_transitions")
        counts = all(is_number(number, int) and number > 0 for number in (segment, rows, transitions))
        if stage.trainer != "smt" or "num_transitions" in stage.arguments or not counts or segment > rows:
            return {}
        return {"num_transitions": min(transitions, rows - rows % segment)}

    def fixed(self, stage: Stage, seed: int) -> dict:
        """Further arguments of a stage."""
        return {}

    def folder(self, stage: Stage, length: int) -> str:
        """The folder of a stage's runs of this length."""
        return "every-length" if self.comparison.is_shared(stage) else f"length-{length}"

    def settings(self, stage: Stage, length: int) -> dict:
        """What a stage depends on besides models and arguments; without length and budget if all lengths share it."""
        comparison, shared = self.comparison, self.comparison.is_shared(stage)
        return {
            "task": comparison.task,
            "task_options": comparison.task_options,
            "length": None if shared else length,
            "cpu_seconds": None if shared else comparison.cpu_seconds[comparison.lengths.index(length)],
            "eval_rows": comparison.eval_rows,
            "eval_factors": comparison.eval_factors,
            "gradient_length": comparison.gradient_length,
        }

    def stage_settings(self, stage: Stage, length: int) -> dict:
        """The part of [`settings`] that each stage of a chain has for itself."""
        return {"length": stage.length or length, "task_options": stage.task_options}

    def data(self, stage: Stage, length: int, seed: int, arguments) -> dict:
        """The trainer's arguments for a stage's data."""
        task = self.comparison.stage_task(stage, length)
        return {"train_dataset": TaskDataset(task, EPOCH_ROWS, seed=row_seed(seed, stage))}

    def untrained(self, stage: Stage, student) -> dict:
        """The measurements of a new student before its first step."""
        if stage.trainer != "bptt" or stage.shown_label is None:
            return {}
        return {"initial_gradient_norms": gradient_norms(self.comparison, student)}

    def measure(self, student, stage: Stage, length: int) -> dict:
        """Measures a student during its training: `loss` and others."""
        return evaluate_on_task(student, self.comparison.stage_task(stage, length), TRACE_ROWS)

    def measured(self, student, teacher, stage: Stage, length: int) -> dict:
        """Measures a trained student, and its teacher if it has one."""
        return measured(self.comparison, student, teacher, length, stage.trainer == "smt")

    def words(self, result: dict) -> str:
        """A result in a few words."""
        return f"accuracy {result['trace'][-1]['accuracy']:.3f}"


def row_seed(seed: int, stage: Stage) -> int:
    """The seed of the rows that a stage trains on.

    Every stage of a run has a different one, whatever else is in the recipe. It is above 2 ** 32, so that no block of these rows
    has the generator of the evaluation rows, which is the same to numpy as that of (EVALUATION_SEED, 0, 0).
    """
    return (seed + 1 << 32) + zlib.crc32(stage.name.encode())
