"""What the metrics tell `evaluate` about themselves."""

import datasets
import evaluate

SMT_CITATION = """@article{kumar2026pretraining,
  title   = {Pretraining Recurrent Networks without Recurrence},
  author  = {Kumar, Akarsh and Isola, Phillip},
  journal = {arXiv preprint arXiv:2606.06479},
  year    = {2026}
}"""


def metric_info(description: str, inputs: str, columns: list[dict], citation: str = "") -> evaluate.MetricInfo:
    """The description of a metric.

    Args:
        description: what it measures.
        inputs: its arguments and results.
        columns: the forms that a row may have, each with the type of every column.
        citation: BibTeX of its source.
    """
    features = [datasets.Features(form) for form in columns]
    info = evaluate.MetricInfo(
        description=description, citation=citation, inputs_description=inputs, features=features
    )
    # Set afterwards, because the constructor accepts it for scalars only; without it rows are lists of Python floats.
    info.format = "numpy"
    return info


def rows_of(kind: str, num_dims: int):
    """The type of a column whose rows are arrays of `num_dims` dimensions, such as `rows_of("float32", 2)`."""
    feature = datasets.Value(kind)
    for _ in range(num_dims):
        feature = datasets.List(feature)
    return feature


LOSS_COLUMNS = [
    {"predictions": rows_of("float32", 2), "references": rows_of("int64", 1)},
    {"predictions": rows_of("float32", 1), "references": rows_of("int64", 1)},
]
"""Rows of logits `(T, V)` or losses `(T,)`, and of token ids `(T,)`."""
