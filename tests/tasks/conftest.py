"""What the tests of the tasks share: how many examples hypothesis tries, and rows as plain lists."""

from hypothesis import settings
from hypothesis import strategies as st

few = settings(max_examples=30, deadline=None, database=None, derandomize=True)
seeds = st.integers(0, 2**40)


def rows_of(task, seed, num_rows=4):
    """The rows of a sample as pairs of lists: inputs and labels."""
    sample = task.sample(num_rows, seed)
    assert sample["input_ids"].shape == sample["shift_labels"].shape == (num_rows, task.length)
    return list(zip(sample["input_ids"].tolist(), sample["shift_labels"].tolist(), strict=True))
