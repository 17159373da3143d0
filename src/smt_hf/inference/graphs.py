"""A student as two ONNX graphs: the step of its memory, and the readout."""

import copy
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from ..models.layers_smt import eager_attention_forward

OPSET = 23  # the first with RMSNormalization, which replaces six operators
WEIGHT_DTYPES = ("float32", "float16", "int8")
SMALLEST_STORED = 2048  # numbers; smaller matrices stay in float32

# Plain matrix products, for which ONNX Runtime has fast kernels, whichever implementation the student uses.
ALL_ATTENTION_FUNCTIONS.register("smt_plain", eager_attention_forward)


class Step(nn.Module):
    """Reads one token: returns the next memory, and the logits for the token after it."""

    def __init__(self, student):
        super().__init__()
        self.student = student

    def forward(self, memory, input_ids):
        memory = self.student.update(memory, input_ids)
        return memory, self.student.readout(memory)


def float_copy(student):
    """The student to export: a copy in float32 on the CPU, in evaluation mode."""
    return copy.deepcopy(student).to("cpu", torch.float32).eval().requires_grad_(False)


def step_graphs(student) -> tuple[onnx.ModelProto, onnx.ModelProto]:
    """The graphs of a float32 student (see [`float_copy`]), for any batch size.

    Args:
        student: an [`SmtRnnForCausalLM`]; the attention implementation in its configuration is changed.

    Returns:
        `update`: `memory` `(B, K, D)` float32, `input_ids` `(B,)` int64 -> `next_memory` `(B, K, D)`; and `readout`:
        `memory` -> `logits` `(B, V)`.
    """
    config = student.config
    config._attn_implementation = "smt_plain"
    # Three rows: torch treats a batch of one, and sizes that happen to be equal, as constants.
    memory = torch.randn(3, config.num_memory_tokens, config.hidden_size)
    with quiet(), torch.no_grad():
        program = torch.onnx.export(
            Step(student),
            (memory, torch.zeros(3, dtype=torch.long)),
            dynamo=True,
            opset_version=OPSET,
            input_names=["memory", "input_ids"],
            output_names=["next_memory", "logits"],
            dynamic_shapes=({0: "batch"}, {0: "batch"}),
            verbose=False,
        )
    model = program.model_proto
    scale_by_one(model)
    step = onnx.utils.Extractor(model)
    update = step.extract_model(["memory", "input_ids"], ["next_memory"])
    readout = step.extract_model(["next_memory"], ["logits"])
    rename_input(readout, "next_memory", "memory")
    for graph in (update, readout):
        forget_sources(graph)
    return update, readout


def scale_by_one(model: onnx.ModelProto) -> None:
    """Replaces the scale of every RMS normalization without a learned one by ones of its width.

    torch writes ones in the shape of the whole input, which ONNX does not allow and onnxruntime up to 1.23 rejects.
    """
    graph = model.graph
    ones = {name for node in graph.node if node.op_type == "ConstantOfShape" for name in node.output}
    shapes = {
        value.name: value.type.tensor_type.shape.dim for value in (*graph.input, *graph.value_info, *graph.output)
    }
    for node in graph.node:
        if node.op_type == "RMSNormalization" and node.input[1] in ones:
            width = shapes[node.input[0]][-1].dim_value
            name = f"ones.{width}"
            if not any(tensor.name == name for tensor in graph.initializer):
                graph.initializer.append(numpy_helper.from_array(np.ones(width, np.float32), name))
            node.input[1] = name


def rename_input(model: onnx.ModelProto, old: str, new: str) -> None:
    """Renames the only input of a graph."""
    model.graph.input[0].name = new
    for node in model.graph.node:
        node.input[:] = [new if name == old else name for name in node.input]


def forget_sources(model: onnx.ModelProto) -> None:
    """Removes the operators' source locations, which name files of the exporting machine."""
    del model.metadata_props[:]
    del model.graph.metadata_props[:]
    for item in (*model.graph.node, *model.graph.input, *model.graph.output, *model.graph.value_info):
        del item.metadata_props[:]
        item.doc_string = ""


def store_weights(model: onnx.ModelProto, dtype: str) -> None:
    """Stores the matrices of a graph in fewer bits, in place.

    ONNX Runtime turns them back into float32 once, when it loads the graph, and computes in float32: each row of a batch gives
    the same result as alone, whatever its neighbours are. `int8` has one scale for every output of a matrix.

    Args:
        model: one of the [`step_graphs`].
        dtype: `"float32"` (no change), `"float16"` or `"int8"`.
    """
    if dtype == "float32":
        return
    columns = {node.input[1] for node in model.graph.node if node.op_type == "MatMul"}
    kept, nodes = [], []
    for tensor in model.graph.initializer:
        if tensor.data_type != TensorProto.FLOAT or len(tensor.dims) < 2 or np.prod(tensor.dims) < SMALLEST_STORED:
            kept.append(tensor)
            continue
        name, weights = tensor.name, numpy_helper.to_array(tensor)
        if dtype == "float16":
            kept.append(numpy_helper.from_array(weights.astype(np.float16), f"{name}.stored"))
            nodes.append(helper.make_node("Cast", [f"{name}.stored"], [name], to=TensorProto.FLOAT))
            continue
        scale = np.abs(weights).max(axis=-2 if name in columns else -1, keepdims=True) / 127
        scale[scale == 0] = 1
        kept.append(numpy_helper.from_array(np.rint(weights / scale).astype(np.int8), f"{name}.stored"))
        kept.append(numpy_helper.from_array(scale.astype(np.float32), f"{name}.scale"))
        nodes.append(helper.make_node("Cast", [f"{name}.stored"], [f"{name}.whole"], to=TensorProto.FLOAT))
        nodes.append(helper.make_node("Mul", [f"{name}.whole", f"{name}.scale"], [name]))
    nodes += model.graph.node
    del model.graph.initializer[:], model.graph.node[:]
    model.graph.initializer.extend(kept)
    model.graph.node.extend(nodes)


@contextmanager
def quiet() -> Iterator[None]:
    """Keeps torch's exporter from warning about packages that it does not need."""
    exporter = logging.getLogger("torch.onnx")
    level = exporter.level
    exporter.setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            exporter.setLevel(level)
