"""A memory belongs to a function: the same student in any precision and place, and no other."""

import copy
import math
import pickle

import pytest
import torch
from accelerate import cpu_offload, disk_offload, dispatch_model
from torch.ao.quantization import quantize_dynamic

from smt_hf import SmtMemory, SmtRnnConfig, SmtRnnForCausalLM
from smt_hf.models import fingerprint_smt_rnn
from smt_hf.models.cells_smt_rnn import CELLS
from smt_hf.models.fingerprint_smt_rnn import TOLERANCES, difference, precision_of, same_student
from smt_hf.models.memory_smt_rnn import fingerprint

pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning:torch.ao", "ignore:torch.ao", "ignore:torch.quantize"
)
LAYERS = {torch.nn.Linear, torch.nn.GRUCell, torch.nn.LSTMCell, torch.nn.RNNCell}


def student_with(cell_type="transformer", seed=0, **overrides):
    torch.manual_seed(seed)
    sizes = {"hidden_size": 32, "num_memory_tokens": 4, "num_updater_layers": 2, "num_readout_layers": 1}
    options = {"vocab_size": 20, "num_attention_heads": 4, "initializer_range": 0.1, "cell_type": cell_type, **sizes}
    return SmtRnnForCausalLM(SmtRnnConfig(**{**options, **overrides})).eval()


@pytest.fixture(params=CELLS)
def any_student(request):
    return student_with(request.param)


@pytest.fixture
def small():
    return student_with()


@pytest.fixture
def probes(monkeypatch):
    """How often a student was asked what it makes of the tokens."""
    calls, probe = [], fingerprint_smt_rnn.probe
    monkeypatch.setattr(fingerprint_smt_rnn, "probe", lambda student: calls.append(student) or probe(student))
    return calls


def dequantized(student, bits):
    """The student with matrices that were rounded row by row, and are stored in float32 again."""
    student = copy.deepcopy(student)
    with torch.no_grad():
        for name, weight in student.named_parameters():
            if weight.ndim == 2 and name.endswith("proj.weight"):
                scale = weight.abs().amax(dim=1, keepdim=True) / (2 ** (bits - 1) - 1)
                weight.copy_((weight / scale).round() * scale)
    return student


def twins(student):
    """One student in every precision that torch itself has."""
    copies = {
        "float64": copy.deepcopy(student).double(),
        "float16": copy.deepcopy(student).half(),
        "bfloat16": copy.deepcopy(student).bfloat16(),
        "float16 in float32": copy.deepcopy(student).half().float(),
        "bfloat16 in float32": copy.deepcopy(student).bfloat16().float(),
        "bfloat16 in float64": copy.deepcopy(student).bfloat16().double(),
        "int8": quantize_dynamic(student, LAYERS, dtype=torch.qint8),
        "int8, linear layers": quantize_dynamic(student, {torch.nn.Linear}, dtype=torch.qint8),
        "float16, linear layers": quantize_dynamic(student, {torch.nn.Linear}, dtype=torch.float16),
        "int8 in float32": dequantized(student, 8),
    }
    return copies


def test_one_student_in_every_precision(any_student):
    mine = fingerprint(any_student)
    others = {name: fingerprint(twin) for name, twin in twins(any_student).items()}
    for name, theirs in others.items():
        assert same_student(mine, theirs) and same_student(theirs, mine), (name, difference(mine, theirs))
        assert all(same_student(theirs, another) for another in others.values())
    assert difference(mine, others["float64"])[0] < 1e-5


@pytest.mark.parametrize("cell_type", CELLS)
def test_one_student_in_four_bits(cell_type):
    student = student_with(cell_type, initializer_range=0.05)
    small = fingerprint(dequantized(student, 4))
    assert small.startswith("1:4-bit:") and difference(fingerprint(student), small)[0] > 1e-3
    assert same_student(fingerprint(student), small)


def test_read_in_one_precision_and_gone_on_in_another(any_student):
    ids = torch.tensor([[1, 2, 3], [4, 5, 6]])
    memory = any_student.read(ids)
    for twin in twins(any_student).values():
        other = twin.read(ids)
        for writer, read in ((any_student, other), (twin, memory)):
            assert writer.generate(memory=read, max_new_tokens=2, pad_token_id=0).shape == (2, 2)
        assert len(SmtMemory.cat([memory, other])) == 4 and memory.distance(other).max() < 0.1


@pytest.mark.parametrize("memory_normalization", ["rms", "none"])
@pytest.mark.parametrize("cell_type", CELLS)
def test_another_student(cell_type, memory_normalization):
    student, other = (student_with(cell_type, seed, memory_normalization=memory_normalization) for seed in (0, 1))
    for twin in [other, *twins(other).values()]:
        relative, tolerance = difference(fingerprint(student), fingerprint(twin))
        assert relative > 0.5 > tolerance


@pytest.mark.parametrize("part", ["cell", "decoder", "lm_head", "embed_tokens", "initial_memory"])
def test_every_part_counts(any_student, part):
    """In float32 a change of one per cent of any part makes another function."""
    before = fingerprint(any_student)
    changed = 0
    with torch.no_grad():
        for name, parameter in any_student.named_parameters():
            if part in name:
                parameter += 0.01 * parameter.std(correction=0) * torch.randn_like(parameter)
                changed += 1
    assert changed and not same_student(before, fingerprint(any_student))


def test_training_makes_another_student(any_student):
    before = fingerprint(any_student)
    ids = torch.arange(20)[None]
    optimizer = torch.optim.AdamW(any_student.parameters(), lr=1e-5)
    any_student(ids, labels=ids).loss.backward()
    optimizer.step()
    assert not same_student(before, fingerprint(any_student))


def test_it_depends_on_nothing_but_the_weights(small):
    expected = fingerprint(small)
    torch.manual_seed(5)
    state = torch.get_rng_state()
    again = student_with()
    torch.set_rng_state(state)
    again.train()
    again.model.decoder.eval()
    flags = [module.training for module in again.modules()]
    for parameter in again.parameters():
        parameter.requires_grad_(False)
    again.config.return_dict, again.config.output_hidden_states, again.config.use_cache = False, True, False
    with torch.autocast("cpu", torch.bfloat16):
        assert difference(fingerprint(again), expected) < (1e-5, 1)  # frozen weights take kernels that round otherwise
    assert [module.training for module in again.modules()] == flags
    assert torch.get_rng_state().equal(state)
    assert again.config.output_hidden_states and all(parameter.grad is None for parameter in again.parameters())


def test_dropout_does_not_count():
    students = [student_with(attention_dropout=dropout) for dropout in (0.0, 0.5)]
    assert fingerprint(students[0]) == fingerprint(students[1].train())


def test_the_head_of_the_text_says_what_it_is(small):
    head, precision, numbers = fingerprint(small).split(":")
    assert (head, precision) == ("1", "float32") and len(numbers) == 684


@pytest.mark.parametrize("text", ["0123456789abcdef", "", "1:float32:", "1:float99:AAAA", "2:float32:AAAA", None, 7])
def test_what_is_no_fingerprint(small, text):
    for pair in ((text, fingerprint(small)), (fingerprint(small), text)):
        with pytest.raises(ValueError, match="damaged or from an earlier version: read the text again") as caught:
            same_student(*pair)
        assert "\n" not in str(caught.value)


def test_weights_that_are_not_finite_are_nobody(small):
    good = fingerprint(small)
    with torch.no_grad():
        small.lm_head.weight[0, 0] = math.nan
    assert not same_student(good, fingerprint(small)) and not same_student(fingerprint(small), fingerprint(small))


def test_the_coarser_precision_decides(small):
    precisions = {name: fingerprint(twin).split(":")[1] for name, twin in twins(small).items()}
    assert precisions == {
        "float64": "float32",
        "float16": "float16",
        "bfloat16": "bfloat16",
        "float16 in float32": "float16",
        "bfloat16 in float32": "bfloat16",
        "bfloat16 in float64": "bfloat16",
        "int8": "8-bit",
        "int8, linear layers": "8-bit",
        "float16, linear layers": "8-bit",
        "int8 in float32": "8-bit",
    }
    for twin in twins(small).values():
        tolerances = [difference(*pair)[1] for pair in ((fingerprint(small), fingerprint(twin)),) * 2]
        assert tolerances == [TOLERANCES[fingerprint(twin).split(":")[1]]] * 2
    assert list(TOLERANCES.values()) == sorted(TOLERANCES.values())


@pytest.mark.parametrize(
    "module, name, expected",
    [
        ("bitsandbytes.nn.modules", "Params4bit", "4-bit"),
        ("bitsandbytes.nn.modules", "Int8Params", "8-bit"),
        ("torchao.quantization.quantize_.workflows.int8.int8_tensor", "Int8Tensor", "8-bit"),
        ("torchao.quantization.quantize_.workflows.intx", "IntxUnpackedToInt8Tensor", "4-bit"),
        ("torchao.quantization.quantize_.workflows.float8.float8_tensor", "Float8Tensor", "8-bit"),
        ("torchao.quantization.quantize_.workflows.int4.int4_tensor", "Int4Tensor", "4-bit"),
        ("optimum.quanto.tensor.weights.qbytes", "WeightQBytesTensor", "8-bit"),
        ("optimum.quanto.tensor.weights.qbits", "WeightQBitsTensor", "4-bit"),
    ],
)
def test_quantized_weights_are_known_by_their_class(small, monkeypatch, module, name, expected):
    """Whatever is not known for 8 bits is taken for 4."""
    weights = type(name, (torch.nn.Parameter,), {"__module__": module})
    small.lm_head.weight = weights(small.lm_head.weight.detach())
    assert precision_of(small) == expected


@pytest.mark.parametrize(
    "dtype, label", [(torch.int8, "8-bit"), (torch.float8_e4m3fn, "8-bit"), (torch.uint8, "4-bit")]
)
def test_quantized_weights_are_known_by_their_type(small, dtype, label):
    """Bytes without a sign may hold two weights each."""
    expected = fingerprint(small).split(":")[2]
    small.lm_head.codes = torch.nn.Parameter(torch.zeros(4).to(dtype), requires_grad=False)
    assert fingerprint(small).split(":")[1:] == [label, expected]


def test_computed_once(small, probes):
    ids = torch.tensor([[1, 2, 3]])
    memory = small.read(ids)
    for _ in range(3):
        small.generate(memory=memory, max_new_tokens=2)
        small.generate(ids, memory=memory, max_new_tokens=2)
        memory = small.read(ids, memory=memory)
    small.eval()
    small.requires_grad_(False)
    with torch.inference_mode():
        fingerprint(small)
    assert len(probes) == 1


def changes():
    def step(student):
        optimizer = torch.optim.SGD(student.parameters(), lr=1e-3)
        student(torch.arange(20)[None], labels=torch.arange(20)[None]).loss.backward()
        optimizer.step()

    def swap(student):
        student.lm_head.weight = torch.nn.Parameter(student.lm_head.weight.detach() * 2)

    def past_autograd(student):
        student.lm_head.weight.data[3, 3] += 0.5

    def average(student):  # as an exponential moving average does
        for parameter in student.parameters():
            parameter.data.mul_(0.9)

    return {
        "step": step,
        "load_state_dict": lambda student: student.load_state_dict(student_with(seed=1).state_dict()),
        "assigned": lambda student: student.load_state_dict(student_with(seed=1).state_dict(), assign=True),
        "in place": lambda student: student.lm_head.weight.detach().add_(0.1 * torch.randn(20, 32)),
        "swapped": swap,
        "past autograd": past_autograd,
        "average": average,
        "another dtype": lambda student: student.bfloat16(),
    }


@pytest.mark.parametrize("name", changes())
def test_changed_weights_are_noticed(small, probes, name):
    before = fingerprint(small)
    changes()[name](small)
    after = fingerprint(small)
    assert len(probes) == 2 and after != before
    assert after == fingerprint(copy.deepcopy(small))
    assert same_student(before, after) == (name == "another dtype")


def test_copies_know_their_own(small):
    memory = small.read(torch.tensor([[1, 2]]))
    other = copy.deepcopy(small)
    with torch.no_grad():
        other.lm_head.weight.mul_(-1)
    assert not same_student(fingerprint(other), memory.fingerprint)
    assert fingerprint(pickle.loads(pickle.dumps(small))) == memory.fingerprint == fingerprint(small)


OFFLOADS = {
    "cpu": lambda student, folder: cpu_offload(student),
    "disk": lambda student, folder: disk_offload(student, str(folder)),
    "parts": lambda student, folder: dispatch_model(
        student, {"model": "cpu", "lm_head": "disk"}, main_device="cpu", offload_dir=str(folder)
    ),
}


@pytest.mark.parametrize("name", OFFLOADS)
def test_offloaded(student, tokens, tmp_path, probes, name):
    memory = student.read(tokens)
    options = {"max_new_tokens": 6, "do_sample": False, "pad_token_id": 0, "eos_token_id": None}
    expected = student.generate(memory=memory, **options)
    probes.clear()
    away = OFFLOADS[name](copy.deepcopy(student), tmp_path)
    assert any(parameter.is_meta for parameter in away.parameters())
    for _ in range(2):
        again = away.read(tokens[:, 7:], memory=away.read(tokens[:, :7]))
        torch.testing.assert_close(again.states, memory.states, rtol=0, atol=1e-9)
        assert again.fingerprint == memory.fingerprint
        assert away.generate(memory=memory, **options).equal(expected)
        assert away.generate(tokens[:, :2], memory=memory, attention_mask=torch.ones(3, 2), **options).shape == (3, 8)
    assert len(probes) == 1


@pytest.mark.parametrize("size", ["1KB", "20KB", "5GB"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_saved_in_shards_and_loaded(small, tmp_path, size, dtype):
    small.save_pretrained(tmp_path, max_shard_size=size)
    loaded = SmtRnnForCausalLM.from_pretrained(tmp_path, dtype=dtype)
    assert same_student(fingerprint(loaded), fingerprint(small))
    if dtype == torch.float32:
        assert fingerprint(loaded) == fingerprint(small)
