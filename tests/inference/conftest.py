"""A small student of every cell and its export, and one to write with."""

import copy

import pytest
import torch

from smt_hf import SmtRnnConfig, SmtRnnForCausalLM
from smt_hf.models.cells_smt_rnn import CELLS
from smt_hf.models.fingerprint_smt_rnn import fingerprint

TEXT = "Once upon a time, there was a small student. It read every byte once; \u201cnever again\u201d, it said. " * 6
SMALL = {
    "vocab_size": 258,
    "hidden_size": 48,
    "num_memory_tokens": 4,
    "num_updater_layers": 2,
    "num_readout_layers": 1,
    "num_attention_heads": 2,
    "initializer_range": 0.05,
    "qk_norm": True,
    "eos_token_id": 256,
    "pad_token_id": 257,
}


def small_student(cell_type="transformer", seed=0, **overrides) -> SmtRnnForCausalLM:
    torch.manual_seed(seed)
    return SmtRnnForCausalLM(SmtRnnConfig(**{**SMALL, "cell_type": cell_type, **overrides})).eval()


@pytest.fixture(scope="session")
def traced_once():
    """Lets torch trace each student once for all tests, which takes seconds."""
    pytest.importorskip("onnxruntime")
    from smt_hf.inference import export, graphs

    known = {}

    def step_graphs(student):
        key = fingerprint(student)
        if key not in known:
            known[key] = graphs.step_graphs(student)
        return copy.deepcopy(known[key])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(export, "step_graphs", step_graphs)
        yield


@pytest.fixture(scope="session")
def exports(tmp_path_factory, tokenizer, traced_once):
    """Exports a student once for all tests: `exports(cell_type, dtype)` -> the student, the folder, what was verified."""
    from smt_hf.inference.export import export_onnx

    made = {}

    def export(cell_type="transformer", dtype="float32"):
        if (cell_type, dtype) not in made:
            student = small_student(cell_type)
            folder = tmp_path_factory.mktemp("exports") / f"{cell_type}-{dtype}"
            made[cell_type, dtype] = student, folder, export_onnx(student, tokenizer, folder, TEXT, dtype)
        return made[cell_type, dtype]

    return export


@pytest.fixture(params=list(CELLS))
def cell_export(exports, request):
    return exports(request.param)


@pytest.fixture(scope="session")
def writer():
    """A student of bytes whose weights are large enough for every token to matter, and exact enough for rounding not to."""
    torch.manual_seed(3)
    sizes = {"hidden_size": 16, "num_memory_tokens": 3, "num_updater_layers": 2, "num_readout_layers": 1}
    config = SmtRnnConfig(
        vocab_size=258, num_attention_heads=2, initializer_range=0.3, pad_token_id=257, eos_token_id=256, **sizes
    )
    return SmtRnnForCausalLM(config).double().eval().requires_grad_(False)


def alone(student, prompt, **options):
    """What `generate()` writes after one prompt."""
    ids = torch.tensor([prompt])
    torch.manual_seed(options.pop("seed", 0))
    sampling = {"do_sample": True, "top_k": 0, **options} if "temperature" in options else options
    sequences = student.generate(ids, attention_mask=torch.ones_like(ids), **{"do_sample": False, **sampling})
    return sequences[0, len(prompt) :].tolist()
