"""Steps without modules: the numbers of the student's own, and only where nothing else acts on them."""

import pytest
import torch
from torch import nn
from transformers import StoppingCriteriaList

from smt_hf import SmtRnnConfig, SmtRnnForCausalLM
from smt_hf.models import generation_smt_rnn
from smt_hf.models.cache_smt_rnn import CACHE_NAME
from smt_hf.models.lean_smt_rnn import LeanStep, is_lean

EXACT = {"rtol": 0, "atol": 1e-10}
VARIANTS = {
    "transformer": {},
    "qk_norm": {"qk_norm": True, "hidden_act": "relu2"},
    "no readout layers": {"num_readout_layers": 0},
    "not normalised": {"memory_normalization": "none"},
    "tied": {"tie_word_embeddings": True},
    "one updater layer": {"num_updater_layers": 1, "num_attention_heads": 2},
    "mlp": {"cell_type": "mlp"},
    "gru": {"cell_type": "gru"},
    "lstm": {"cell_type": "lstm", "num_updater_layers": 1},
    "elman": {"cell_type": "elman", "cell_input": "token"},
}


def make(seed=0, **changes):
    sizes = {"vocab_size": 20, "hidden_size": 16, "num_memory_tokens": 4, "num_updater_layers": 2}
    torch.manual_seed(seed)
    config = SmtRnnConfig(
        **{**sizes, "num_readout_layers": 2, "num_attention_heads": 4, "initializer_range": 0.3, **changes}
    )
    student = SmtRnnForCausalLM(config).double().eval()
    for name, parameter in student.named_parameters():  # scales of norms begin at one
        if "norm" in name:
            nn.init.uniform_(parameter, 0.5, 2.0)
    return student


@pytest.mark.parametrize("changes", VARIANTS.values(), ids=VARIANTS.keys())
def test_a_lean_step_is_a_step(changes, tokens):
    student = make(**changes)
    assert is_lean(student)
    step, memory, lean = LeanStep(student), student.model.start_memory(3), student.model.start_memory(3)
    for column in tokens.T:
        memory, lean = student.update(memory, column), step.update(lean, column)
        torch.testing.assert_close(lean, memory, **EXACT)
        torch.testing.assert_close(step.readout(lean), student.readout(memory), **EXACT)
    assert not lean.requires_grad


class Other(nn.Linear):
    def forward(self, states):
        return 2 * super().forward(states)


def another_layer(student):
    block = student.model.decoder.layers[0].mlp
    block.up_proj = Other(16, 64, bias=False).double()


def a_bias(student):
    student.lm_head = nn.Linear(16, 20).double()


def a_bias_in_the_cell(student):
    student.model.cell.transformer.layers[0].mlp.up_proj = nn.Linear(16, 64).double()


def a_subclass(student):
    student.__class__ = type("OfTheUser", (SmtRnnForCausalLM,), {"__module__": __name__, "forward": a_forward})


def a_forward(self, *args, **kwargs):
    return super(SmtRnnForCausalLM, self).forward(*args, **kwargs)


STANDS_BACK = {
    "another layer": another_layer,
    "a bias of the head": a_bias,
    "a bias in the cell": a_bias_in_the_cell,
    "a subclass with a forward of its own": a_subclass,
    "a hook": lambda student: student.model.cell.transformer.layers[0].register_forward_hook(lambda *_: None),
    "a hook of the whole": lambda student: student.register_forward_pre_hook(lambda *_: None),
    "a patched forward": lambda student: setattr(student.lm_head, "forward", student.lm_head.forward),
    "half precision": lambda student: student.to(torch.bfloat16),
    "training": lambda student: student.train(),
}


@pytest.mark.parametrize("change", STANDS_BACK.values(), ids=STANDS_BACK.keys())
def test_it_stands_back_where_something_else_acts(change):
    student = make()
    change(student)
    assert not is_lean(student)


def test_generation_follows_changed_weights(tokens):
    student, other = make(), make(seed=1)
    options = {"max_new_tokens": 6, "do_sample": False, "pad_token_id": 0, "attention_mask": torch.ones_like(tokens)}
    before = student.generate(tokens, **options)
    for parameter, value in zip(student.parameters(), other.parameters(), strict=True):
        parameter.data.copy_(value)
    assert student.generate(tokens, **options).equal(other.generate(tokens, **options))
    assert not student.generate(tokens, **options).equal(before)


@pytest.mark.parametrize("options", [{"do_sample": False}, {"do_sample": True, "top_p": 0.9}])
@pytest.mark.parametrize("num_rows", [1, 3])
def test_generation_equals_the_librarys_loop(options, num_rows, tokens):
    student, tokens = make(), tokens[:num_rows]
    options = {"max_new_tokens": 12, "pad_token_id": 0, "eos_token_id": 3, **options}
    options |= {"return_dict_in_generate": True, "output_scores": True, "output_logits": True}
    options["attention_mask"] = torch.ones_like(tokens)
    torch.manual_seed(1)
    lean = student.generate(tokens, **options)
    student.register_forward_hook(lambda *_: None)  # the library's own loop
    torch.manual_seed(1)
    plain = student.generate(tokens, **options)
    assert lean.sequences.equal(plain.sequences)
    for mine, theirs in zip(lean.scores + lean.logits, plain.scores + plain.logits, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-6)
    mine, theirs = lean[CACHE_NAME], plain[CACHE_NAME]
    torch.testing.assert_close(mine.memory, theirs.memory, **EXACT)
    assert mine.get_seq_length() == theirs.get_seq_length()
    assert mine.num_tokens.equal(theirs.num_tokens) and mine.ends_in_padding.equal(theirs.ends_in_padding)


def test_one_row_ends_where_the_librarys_loop_ends_it(tokens):
    student, prompt = make(), tokens[:1]
    mask = {"attention_mask": torch.ones_like(prompt), "do_sample": False}
    written = student.generate(prompt, max_new_tokens=12, **mask)[0, prompt.shape[1] :].tolist()
    for end in ({"eos_token_id": written[4]}, {"eos_token_id": [19, written[6]]}, {"max_length": 20}):
        options = {"pad_token_id": 0, "max_new_tokens": None if "max_length" in end else 12, **end, **mask}
        mine = student.generate(prompt, **options)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(generation_smt_rnn, "is_lean", lambda student: False)
            patch.setattr(
                generation_smt_rnn.FinishedRows,
                "_of_one_row",
                lambda rows, ids: StoppingCriteriaList.__call__(rows, ids, None),
            )
            assert mine.equal(student.generate(prompt, **options)) and mine.shape[1] < 14 + 12


def test_a_memory_that_has_diverged_draws_nothing(tokens):
    student = make()
    student.lm_head.weight.data[3] = float("nan")
    with pytest.raises(RuntimeError, match="not finite"):
        student.generate(tokens[:1], attention_mask=torch.ones_like(tokens[:1]), do_sample=True, max_new_tokens=3)
