"""Every cell in every use: it trains by SMT, DMT and BPTT, skips padding, generates, and is saved with its code."""

import json
import os
import subprocess
import sys

import pytest
import torch
from huggingface_hub.errors import StrictDataclassError
from torch import nn
from transformers import AutoModelForCausalLM, Trainer, TrainingArguments

from smt_hf import DmtTrainer, DmtTrainingArguments, SmtConfig, SmtForPreTraining, SmtRnnConfig, SmtTeacherConfig
from smt_hf.models import student_config_for
from smt_hf.models.cache_smt_rnn import CACHE_NAME
from smt_hf.models.cells_smt_rnn import CELLS
from smt_hf.models.modeling_smt_rnn import SmtRnnModel
from smt_hf.training import SmtTrainer, SmtTrainingArguments

LAYERS = {"transformer": 2, "mlp": 2, "elman": 2, "gru": 2, "lstm": 1}
STACKED = ("elman", "gru", "lstm")
KINDS = [(cell, "memory") for cell in CELLS] + [(cell, "token") for cell in STACKED]
SMALL = {
    "vocab_size": 20,
    "hidden_size": 16,
    "num_memory_tokens": 4,
    "num_attention_heads": 2,
    "initializer_range": 0.3,
}
RUN = {"use_cpu": True, "report_to": "none", "save_strategy": "no", "disable_tqdm": True, "learning_rate": 1e-2}


class Rows(torch.utils.data.Dataset):
    def __len__(self):
        return 64

    def __getitem__(self, index):
        return {"input_ids": torch.randint(20, (16,), generator=torch.Generator().manual_seed(index))}


@pytest.fixture(params=KINDS, ids="-".join)
def joint(request):
    torch.manual_seed(0)
    cell_type, cell_input = request.param
    teacher = SmtTeacherConfig(**SMALL, num_encoder_layers=1, num_decoder_layers=1)
    student = student_config_for(
        teacher, cell_type=cell_type, cell_input=cell_input, num_updater_layers=LAYERS[cell_type]
    )
    return SmtForPreTraining(SmtConfig(teacher_config=teacher, student_config=student)).double().eval()


@pytest.fixture
def student(joint):
    return joint.export_student().eval()


def moved_by(model, train):
    """Which parameters a few steps of training change."""
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    result = train()
    assert torch.isfinite(torch.tensor(result.training_loss))
    return {name for name, value in model.named_parameters() if not value.equal(before[name])}


class TestEveryCell:
    def test_smt_step(self, joint, tmp_path):
        arguments = SmtTrainingArguments(
            str(tmp_path), max_steps=3, context_length=8, horizon=4, num_transitions=4, num_decoded=2, **RUN
        )
        trainer = SmtTrainer(model=joint.float(), args=arguments, train_dataset=Rows())
        moved = moved_by(joint, trainer.train)
        cell = {name for name, _ in joint.named_parameters() if ".cell." in name}
        assert cell and cell <= moved

    def test_dmt_step(self, joint, tmp_path):
        student = joint.float().export_student()
        arguments = DmtTrainingArguments(
            str(tmp_path), max_steps=3, context_length=8, rollout_length=8, num_sweeps=[1, 2], **RUN
        )
        trainer = DmtTrainer(model=student, args=arguments, teacher=joint.teacher, train_dataset=Rows())
        moved = moved_by(student, trainer.train)
        assert {name for name, _ in student.named_parameters() if ".cell." in name} <= moved

    def test_bptt_step(self, student, tmp_path):
        def collate(items):
            ids = torch.stack([item["input_ids"] for item in items])
            return {"input_ids": ids, "labels": ids}

        arguments = TrainingArguments(str(tmp_path), max_steps=3, remove_unused_columns=False, **RUN)
        student = student.float()
        trainer = Trainer(student, arguments, train_dataset=Rows(), data_collator=collate)
        moved = moved_by(student, trainer.train)
        assert set(dict(student.named_parameters())) == moved

    def test_the_gradient_reaches_the_first_token(self, student, tokens):
        embeds = student.get_input_embeddings()(tokens).detach().requires_grad_()
        student(inputs_embeds=embeds).logits[:, -1].sum().backward()
        assert (embeds.grad[:, 0].abs().amax(dim=-1) > 0).all()

    def test_the_memory_is_the_whole_state(self, student, tokens):
        memory = student.initial_memory[None]
        for token in tokens[0]:
            memory = student.update(memory, token[None])
        assert memory.shape == (1, 4, 16)
        torch.testing.assert_close(student(tokens[:1])[CACHE_NAME].memory, memory, rtol=0, atol=1e-9)
        torch.testing.assert_close(memory.square().mean(dim=-1), torch.ones(1, 4).double(), rtol=0, atol=1e-3)

    def test_padding_is_skipped_exactly(self, student, tokens):
        mask = torch.ones_like(tokens)
        mask[0, :5], mask[1, 9:], mask[2, 4:7] = 0, 0, 0
        memory = student(tokens, attention_mask=mask)[CACHE_NAME].memory
        for row in range(3):
            alone = student(tokens[row, mask[row].bool()][None])[CACHE_NAME].memory
            torch.testing.assert_close(memory[row], alone[0], rtol=0, atol=1e-9)

    @pytest.mark.parametrize("options", [{"do_sample": False}, {"do_sample": True}, {"num_beams": 3}])
    def test_cached_generation_equals_uncached(self, student, tokens, options):
        results = []
        for use_cache in (True, False):
            torch.manual_seed(0)
            results.append(student.generate(tokens[:, :5], max_new_tokens=8, use_cache=use_cache, **options))
        assert results[0].equal(results[1])

    def test_saved_and_loaded(self, student, tokens, tmp_path):
        student.save_pretrained(tmp_path)
        loaded = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float64)
        torch.testing.assert_close(loaded(tokens).logits, student(tokens).logits, rtol=0, atol=1e-12)

    def test_new_weights_do_not_come_from_nowhere(self, student):
        """Every parameter is set by the initialisation, also where a model is made on the meta device first."""
        with torch.device("meta"):
            fresh = type(student)(student.config)
        fresh.to_empty(device="cpu")
        for parameter in fresh.parameters():
            nn.init.constant_(parameter, torch.nan)
        fresh._is_hf_initialized = False
        for module in fresh.modules():
            fresh._init_weights(module)
        assert all(parameter.isfinite().all() for parameter in fresh.parameters())


REMOTE = """
import json, sys, torch
from transformers import AutoModelForCausalLM
results = {}
for folder in sys.argv[1:]:
    model = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True)
    results[folder] = model.generate(torch.tensor([[1, 2, 3]]), max_new_tokens=8, do_sample=False)[0].tolist()
assert "smt_hf" not in sys.modules
print(json.dumps(results))
"""


def test_every_cell_is_remote_code(tmp_path):
    expected = {}
    for cell, layers in LAYERS.items():
        torch.manual_seed(0)
        config = SmtRnnConfig(**SMALL, cell_type=cell, num_updater_layers=layers, num_readout_layers=1)
        student = AutoModelForCausalLM.from_config(config).eval()
        student.save_pretrained(tmp_path / cell)
        generated = student.generate(torch.tensor([[1, 2, 3]]), max_new_tokens=8, do_sample=False)
        expected[str(tmp_path / cell)] = generated[0].tolist()
    environment = {**os.environ, "HF_MODULES_CACHE": str(tmp_path / "modules"), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-c", REMOTE, *expected]
    result = subprocess.run(command, capture_output=True, text=True, check=True, env=environment, timeout=300)
    assert json.loads(result.stdout.splitlines()[-1]) == expected


def stacked_cell(cell_type, **options):
    """A cell of two layers for 8 memory tokens, in double precision, whose parts are all at work."""
    torch.manual_seed(0)
    sizes = {**SMALL, "num_memory_tokens": 8, "num_updater_layers": 2, "memory_normalization": "none"}
    return SmtRnnModel(SmtRnnConfig(**sizes, cell_type=cell_type, **options)).cell.double()


def sections(memory, per_layer):
    """The states of a memory `(B, 8, 16)`, by layer and kind: `(B, 2, per_layer, 64 / per_layer)`."""
    return memory.flatten(1).unflatten(-1, (2, per_layer, -1))


@pytest.mark.parametrize("cell_type", STACKED)
def test_plain_stacks_are_those_of_torch(cell_type):
    cell, per_layer = stacked_cell(cell_type, cell_input="token"), 1 + (cell_type == "lstm")
    stack = {"elman": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}[cell_type](16, 64 // per_layer, num_layers=2).double()
    with torch.no_grad():
        for depth, layer in enumerate(cell.layers):
            for name, value in layer.named_parameters():
                getattr(stack, f"{name}_l{depth}").copy_(value)
    memory, tokens = torch.randn(3, 8, 16).double(), torch.randn(5, 3, 16).double()
    before = sections(memory, per_layer).permute(2, 1, 0, 3).contiguous()
    _, after = stack(tokens, tuple(before) if per_layer == 2 else before[0])
    for token in tokens:
        memory = cell(memory, token)
    expected = torch.stack(after) if per_layer == 2 else after[None]
    torch.testing.assert_close(sections(memory, per_layer).permute(2, 1, 0, 3), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("cell_type", STACKED)
def test_stacks_that_read_the_memory_against_a_loop(cell_type):
    cell, per_layer = stacked_cell(cell_type), 1 + (cell_type == "lstm")
    memory, token = torch.randn(3, 8, 16).double(), torch.randn(3, 16).double()
    moved = cell(memory, token)
    for row in range(3):
        numbers = memory[row].flatten().clone()
        size = 64 // per_layer
        for depth, (block, layer) in enumerate(zip(cell.inputs, cell.layers, strict=True)):
            x = token[row] / (token[row].square().mean() + 1e-6).sqrt()
            tokens = [part / (part.square().mean() + 1e-6).sqrt() for part in numbers.split(16)]
            hidden = nn.functional.gelu(block.up_proj.weight @ torch.cat([*tokens, x]))
            read = x + block.down_proj.weight @ hidden
            own = numbers[64 * depth : 64 * (depth + 1)].split(size)
            state = layer(read[None], tuple(part[None] for part in own) if per_layer == 2 else own[0][None])
            numbers[64 * depth : 64 * (depth + 1)] = torch.cat(state, dim=-1)[0] if per_layer == 2 else state[0]
        torch.testing.assert_close(moved[row].flatten(), numbers, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("cell", "layers", "tokens"), [("gru", 3, 4), ("elman", 8, 4), ("lstm", 2, 6)])
def test_memory_tokens_that_cannot_be_dealt_out(cell, layers, tokens):
    with pytest.raises(StrictDataclassError, match=f"num_memory_tokens={tokens} cannot be divided"):
        SmtRnnConfig(cell_type=cell, num_updater_layers=layers, num_memory_tokens=tokens)
