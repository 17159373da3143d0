"""Exported students are the students, and folders that are none are refused."""

import json
import shutil

import pytest
import torch
from transformers import AutoTokenizer, GenerationConfig

pytest.importorskip("onnxruntime")

import onnx

from smt_hf import SmtMemory
from smt_hf.errors import InputError
from smt_hf.inference import Engine, Request, SamplingParams
from smt_hf.inference.export import MAX_DIFFERENCES, export_onnx, rows_of
from smt_hf.inference.onnx_backend import EXPORT, INITIAL_MEMORY, READOUT, UPDATE, OnnxBackend
from tests.inference.conftest import TEXT, small_student


@pytest.fixture
def copied(exports, tmp_path):
    """A copy of an export to damage."""
    return shutil.copytree(exports()[1], tmp_path / "export")


@torch.no_grad()
def test_the_step_is_the_students_for_every_cell_and_batch_size(cell_export):
    student, folder, verified = cell_export
    backend = OnnxBackend(folder)
    assert verified.max_difference < MAX_DIFFERENCES["float32"] / 10 and verified.num_tokens == 512
    for batch_size in (1, 3, 17):
        memory = torch.randn(batch_size, 4, 48, generator=torch.Generator().manual_seed(batch_size))
        ids = torch.arange(batch_size) * 15
        moved, logits = backend.update(memory, ids), backend.readout(memory)
        torch.testing.assert_close(moved, student.update(memory, ids), rtol=0, atol=1e-5)
        torch.testing.assert_close(logits, student.readout(memory), rtol=0, atol=1e-4)
        assert moved[-1:].equal(backend.update(memory[-1:], ids[-1:])) or batch_size == 1


def test_a_written_text_is_the_one_that_generate_writes(cell_export, tokenizer):
    student, folder, _ = cell_export
    backend = OnnxBackend(folder)
    prompt = tokenizer("Once upon", return_tensors="pt")["input_ids"]
    expected = student.generate(prompt, max_new_tokens=60, do_sample=False, eos_token_id=None, pad_token_id=257)
    memory, ids = backend.initial_memory[None], prompt[0].tolist()
    for token in ids:
        memory = backend.update(memory, torch.tensor([token]))
    for _ in range(60):
        ids.append(backend.readout(memory).argmax().item())
        memory = backend.update(memory, torch.tensor([ids[-1]]))
    assert ids == expected[0].tolist()


def test_the_engine_writes_with_it_what_it_writes_with_the_student(exports):
    student, folder, _ = exports()
    greedy = SamplingParams(max_new_tokens=20, temperature=0)
    requests = [Request(list(text.encode()), greedy) for text in ("Once upon a time", "Tom", "a" * 40)]
    written = [
        [answer.ids for (answer,) in Engine(backend).generate(requests)] for backend in (student, OnnxBackend(folder))
    ]
    assert written[0] == written[1]


@pytest.mark.parametrize("dtype", ["float16", "int8"])
def test_stored_in_fewer_bits(exports, dtype):
    student, folder, verified = exports("transformer", dtype)
    assert 1e-5 < verified.max_difference < MAX_DIFFERENCES[dtype]
    assert abs(verified.loss - verified.exported_loss) < 0.05
    whole = OnnxBackend(exports()[1]).manifest["files"][UPDATE]["bytes"]
    assert OnnxBackend(folder).manifest["files"][UPDATE]["bytes"] < {"float16": 0.8, "int8": 0.6}[dtype] * whole
    memory = student.initial_memory.expand(5, -1, -1)
    moved = OnnxBackend(folder).update(memory, torch.arange(5) * 50)
    alone = OnnxBackend(folder).update(memory[:1], torch.tensor([200]))
    torch.testing.assert_close(moved[4:], alone, rtol=0, atol=1e-6)


def test_what_the_folder_holds(exports, tokenizer):
    student, folder, verified = exports()
    manifest = json.loads((folder / EXPORT).read_text())
    assert manifest["verification"]["max_difference"] == verified.max_difference
    assert manifest["num_parameters"] == student.num_parameters() and manifest["versions"]["onnxruntime"]
    assert AutoTokenizer.from_pretrained(folder)(TEXT)["input_ids"] == tokenizer(TEXT)["input_ids"]
    assert GenerationConfig.from_pretrained(folder).eos_token_id == 256
    memory = SmtMemory.from_pretrained(folder, filename=INITIAL_MEMORY)
    assert memory.to_cache(student).memory.equal(student.initial_memory[None]) and memory.num_tokens.tolist() == [0]
    assert str(folder.parent) not in json.dumps(manifest)
    OnnxBackend(folder).check_student(student)


def test_the_graphs_are_valid_and_say_nothing_of_the_machine(cell_export):
    """Also where onnxruntime is lenient: the scale of a normalization is as long as what it scales."""
    for name in (UPDATE, READOUT):
        graph = onnx.load(cell_export[1] / name)
        onnx.checker.check_model(graph, full_check=True)
        kinds = {node.op_type for node in graph.graph.node}
        assert "RMSNormalization" in kinds and "ConstantOfShape" not in kinds
        assert b"site-packages" not in graph.SerializeToString()


def test_students_in_half_precision_and_with_other_settings(tokenizer, tmp_path):
    student = small_student(tie_word_embeddings=True, memory_normalization="none", hidden_act="silu").to(
        torch.bfloat16
    )
    student.set_attn_implementation("eager")
    verified = export_onnx(student, tokenizer, tmp_path / "export", TEXT)
    assert verified.max_difference < 1e-3
    assert student.dtype == torch.bfloat16 and student.config._attn_implementation == "eager"
    OnnxBackend(tmp_path / "export").check_student(student)


def test_another_students_export_is_refused(exports):
    with pytest.raises(InputError, match="is the export of the student 'of unknown name', not of 'this one'"):
        OnnxBackend(exports()[1]).check_student(small_student(seed=1))


def test_damaged_folders(copied, tmp_path):
    def refused(words):
        with pytest.raises(InputError, match=words) as error:
            OnnxBackend(copied)
        assert "\n" not in str(error.value)

    graph = (copied / UPDATE).read_bytes()
    (copied / UPDATE).write_bytes(graph[:1000] + b"\0" + graph[1001:])
    refused("update.onnx of .* is damaged: export it again")
    (copied / UPDATE).unlink()
    refused("contains no update.onnx")
    for text in ("", "[]", "{}", '{"format": 1, "files": {"tokenizer.json": 3}}'):
        (copied / EXPORT).write_text(text)
        refused("export.json of .* is damaged")
    (copied / EXPORT).write_text('{"format": 0, "files": {}}')
    refused("is an export of version 0, not 1")
    with pytest.raises(InputError, match="contains no export.json: pass a folder that smt-hf export wrote"):
        OnnxBackend(tmp_path)


def test_what_is_not_exported(traced_once, tokenizer, tmp_path):
    student = small_student()
    with pytest.raises(InputError, match="dtype='int4' is not one of float32, float16, int8"):
        export_onnx(student, tokenizer, tmp_path / "export", TEXT, dtype="int4")
    with pytest.raises(InputError, match="has 1 tokens"):
        export_onnx(student, tokenizer, tmp_path / "export", "x")
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="is not empty"):
        export_onnx(student, tokenizer, tmp_path, TEXT)
    with pytest.raises(InputError, match="something other than an export"):
        export_onnx(student, tokenizer, tmp_path, TEXT, overwrite=True)
    with pytest.raises(InputError, match="differs from its student by .* export it as float32"):
        export_onnx(student, tokenizer, tmp_path / "export", TEXT, dtype="int8", max_difference=1e-9)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_the_text_that_is_compared(tokenizer):
    assert rows_of(TEXT, tokenizer).shape == (4, 128)
    assert rows_of("abcde", tokenizer).tolist() == [list(b"abcde")]
    assert rows_of("abcdefghi", tokenizer).tolist() == [list(b"ab"), list(b"cd"), list(b"ef"), list(b"gh")]
