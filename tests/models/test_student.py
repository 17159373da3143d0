"""The student's recurrence: one step, many steps, padding, documents, generation."""

import pytest
import torch
from transformers import AutoModel, AutoModelForCausalLM, DynamicCache

from smt_hf import SmtRnnCache, SmtRnnForCausalLM
from smt_hf.models.cache_smt_rnn import CACHE_NAME

EXACT = {"rtol": 0, "atol": 1e-9}


def naive_logits(student, row):
    memory, logits = student.initial_memory[None], []
    for token in row:
        memory = student.update(memory, token[None])
        logits.append(student.readout(memory))
    return torch.cat(logits), memory


def test_forward_is_the_recurrence(student, tokens):
    output = student(tokens, output_memory=True)
    for row in range(3):
        logits, memory = naive_logits(student, tokens[row])
        torch.testing.assert_close(output.logits[row], logits, **EXACT)
        torch.testing.assert_close(output.memory[row, -1:], memory, **EXACT)
        torch.testing.assert_close(output[CACHE_NAME].memory[row : row + 1], memory, **EXACT)


def test_every_earlier_token_moves_the_logits(student, tokens):
    logits = student(tokens).logits[:, -1]
    for column in range(tokens.shape[1]):
        other = tokens.clone()
        other[:, column] = (other[:, column] + 7) % 20
        assert (student(other).logits[:, -1] - logits).abs().max() > 1e-4


def test_chunks_equal_all_at_once(student, tokens):
    whole = student(tokens).logits
    first = student(tokens[:, :5])
    second = student(tokens[:, 5:6], cache=first[CACHE_NAME])
    third = student(tokens[:, 6:], cache=second[CACHE_NAME])
    torch.testing.assert_close(torch.cat([first.logits, second.logits, third.logits], dim=1), whole, **EXACT)
    assert third[CACHE_NAME].get_seq_length() == 14


@pytest.mark.parametrize("columns", [slice(0, 4), slice(5, 8), slice(10, 14)])
def test_masked_positions_leave_the_memory_alone(student, tokens, columns):
    mask = torch.ones_like(tokens)
    mask[:, columns] = 0
    memory = student(tokens, attention_mask=mask)[CACHE_NAME].memory
    kept = torch.cat([tokens[:, : columns.start], tokens[:, columns.stop :]], dim=1)
    torch.testing.assert_close(memory, student(kept)[CACHE_NAME].memory, **EXACT)


def test_packed_documents_equal_documents_apart(student, tokens):
    documents = torch.tensor([[0] * 5 + [1] * 6 + [2] * 3]).expand(3, -1)
    packed = student(tokens, documents=documents).logits
    apart = [student(tokens[:, first:last]).logits for first, last in ((0, 5), (5, 11), (11, 14))]
    torch.testing.assert_close(packed, torch.cat(apart, dim=1), **EXACT)


def gradients(student, loss):
    return torch.autograd.grad(loss, list(student.parameters()))


def test_rows_are_packed_each_in_its_own_way(student, tokens):
    position_ids = torch.stack([torch.arange(14), torch.arange(14) % 4, torch.arange(14) % 9])
    expected = student(tokens, documents=torch.stack([torch.arange(14) // n for n in (14, 4, 9)])).logits
    torch.testing.assert_close(student(tokens, position_ids=position_ids).logits, expected, **EXACT)


def test_positions_that_begin_again_begin_a_document(student, tokens):
    """As in the packed rows of the library: a 0 after the first position, where the attention mask is not 0."""
    lengths = torch.tensor([5, 1, 5, 3])
    documents = torch.arange(4).repeat_interleave(lengths)[None]
    position_ids = torch.cat([torch.arange(length) for length in lengths])[None]
    expected = student(tokens, documents=documents.expand(3, -1), labels=tokens)
    output = student(tokens, position_ids=position_ids, labels=tokens)
    torch.testing.assert_close(output.logits, expected.logits, **EXACT)
    torch.testing.assert_close(output.loss, expected.loss)
    torch.testing.assert_close(output[CACHE_NAME].memory, expected[CACHE_NAME].memory, **EXACT)
    for mine, theirs in zip(*(gradients(student, loss) for loss in (output.loss, expected.loss)), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-6, atol=1e-6)
    last = student(tokens, position_ids=position_ids, logits_to_keep=2).logits
    torch.testing.assert_close(last, expected.logits[:, -2:], **EXACT)
    mask, apart = torch.ones_like(tokens), tokens.clone()
    mask[:, 11:], apart[:, 11:] = 0, 0
    padded = student(apart, position_ids=position_ids, attention_mask=mask)
    torch.testing.assert_close(padded.logits[:, :11], expected.logits[:, :11], **EXACT)
    torch.testing.assert_close(padded[CACHE_NAME].memory, student(tokens[:, 6:11])[CACHE_NAME].memory, **EXACT)


def test_positions_do_not_move_a_cache(student, tokens):
    """`generate()` counts positions from the first token that is not padding, whatever came before."""
    warm = student(tokens[:, :6])[CACHE_NAME].memory
    position_ids = torch.tensor([[0, 0, 0, 1, 2, 3, 4, 5]])
    outputs = [student(tokens[:, 6:], cache=SmtRnnCache(warm), position_ids=ids) for ids in (None, position_ids)]
    torch.testing.assert_close(outputs[1].logits, outputs[0].logits, rtol=0, atol=0)


def test_labels_give_the_shifted_loss_and_full_bptt(student, tokens):
    output = student(tokens, labels=tokens)
    loss = torch.nn.functional.cross_entropy(output.logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())
    torch.testing.assert_close(output.loss, loss.float())  # the library takes the loss in float32
    output.loss.backward()
    assert all(parameter.grad is not None for parameter in student.parameters())
    embeds = student.model.embed_tokens(tokens).detach().requires_grad_()
    student(inputs_embeds=embeds).logits[:, -1].sum().backward()
    assert embeds.grad.abs().amax(dim=(0, 2)).min() > 0  # back to the first token


@pytest.mark.parametrize("left", [0, 3, 6])
@pytest.mark.parametrize("told_by", ["attention_mask", "documents", "both"])
@pytest.mark.parametrize("labelled", [True, False])
@pytest.mark.parametrize("positions", [True, False])
def test_the_loss_of_a_row_does_not_depend_on_where_it_is_padded(student, tokens, left, told_by, labelled, positions):
    """Whether collators label padding -100 or as the token that stands there, and number positions from the first real token."""
    pad = torch.nn.functional.pad
    rows = pad(tokens[:, :8], (left, 6 - left), value=19)
    mask = pad(torch.ones(3, 8, dtype=torch.long), (left, 6 - left))
    labels = rows.masked_fill(mask == 0, -100) if labelled else rows
    arguments = {"attention_mask": {"attention_mask": mask}, "documents": {"documents": mask - 1}}
    arguments = arguments.get(told_by) or {**arguments["attention_mask"], **arguments["documents"]}
    if positions:
        arguments["position_ids"] = (mask.cumsum(dim=1) - 1).clamp(min=0)
    loss = student(rows, labels=labels, **arguments).loss
    torch.testing.assert_close(loss, student(tokens[:, :8], labels=tokens[:, :8]).loss)


def test_after_a_cache_the_first_token_is_predicted(student, tokens):
    rows = torch.nn.functional.pad(tokens[:, 6:], (2, 0))
    mask = torch.nn.functional.pad(torch.ones(3, 8, dtype=torch.long), (2, 0))
    loss = student(rows, attention_mask=mask, labels=rows, cache=student(tokens[:, :6])[CACHE_NAME]).loss
    expected = torch.nn.functional.cross_entropy(
        student(tokens).logits[:, 5:-1].flatten(0, 1), tokens[:, 6:].flatten()
    )
    torch.testing.assert_close(loss, expected.float())


def test_an_empty_cache_is_none(student, tokens):
    positions = torch.arange(14)[None] % 5
    empty = student(tokens, position_ids=positions, cache=SmtRnnCache(), labels=tokens)
    expected = student(tokens, position_ids=positions, labels=tokens)
    torch.testing.assert_close(empty.logits, expected.logits, **EXACT)
    torch.testing.assert_close(empty.loss, expected.loss)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"bptt_horizon": 0}, "bptt_horizon=0 must be at least 1"),
        ({"bptt_horizon": -1}, "bptt_horizon=-1 must be at least 1"),
        ({"checkpoint_steps": 0}, "checkpoint_steps=0 must be at least 1"),
        ({"documents": torch.zeros(3, 9)}, r"documents has shape \(3, 9\), but the inputs have \(3, 14\)"),
        ({"labels": torch.zeros(3, 9).long()}, r"labels has shape \(3, 9\), but the inputs have \(3, 14\)"),
        ({"shift_labels": torch.zeros(2, 14).long()}, r"shift_labels has shape \(2, 14\)"),
        (
            {"cache": SmtRnnCache(torch.zeros(2, 3, 32))},
            r"shape \(2, 3, 32\), but for these inputs .* needs \(3, 3, 32\)",
        ),
        (
            {"cache": SmtRnnCache(torch.zeros(3, 7, 32))},
            r"shape \(3, 7, 32\), but for these inputs .* needs \(3, 3, 32\)",
        ),
        ({"output_attentions": True}, "output_attentions=True: a memory does not attend to earlier tokens"),
        (
            {"cu_seq_lens_q": torch.tensor([0, 4, 14])},
            "cu_seq_lens_q is not supported: let the collator return position_ids",
        ),
    ],
)
def test_what_does_not_fit_is_refused(student, tokens, arguments, message):
    with pytest.raises(ValueError, match=message):
        student(tokens, **arguments)


def test_labels_do_not_cross_documents(student, tokens):
    documents = torch.tensor([[0] * 5 + [1] * 9]).expand(3, -1)
    loss = student(tokens, documents=documents, labels=tokens).loss
    ignored = tokens.clone()
    ignored[:, 5] = -100
    torch.testing.assert_close(loss, student(tokens, documents=documents, labels=ignored).loss)


@pytest.mark.parametrize("keep", [1, 3, 99, torch.tensor([2, 7]), torch.tensor([7, -1, 2, 2])])
def test_logits_to_keep(student, tokens, keep):
    logits = student(tokens).logits
    expected = logits[:, -keep:] if isinstance(keep, int) else logits[:, keep]
    torch.testing.assert_close(student(tokens, logits_to_keep=keep).logits, expected, **EXACT)


@pytest.mark.parametrize("keep", [0, 1, torch.tensor([2, 5])])
def test_hidden_states_are_those_of_every_token(student, tokens, keep):
    plain = student(tokens, logits_to_keep=keep, output_memory=True)
    assert plain.hidden_states is None
    student.config.output_hidden_states = True
    output = student(tokens, logits_to_keep=keep, output_memory=True)
    embeddings, features = output.hidden_states
    torch.testing.assert_close(embeddings, student.model.embed_tokens(tokens), **EXACT)
    torch.testing.assert_close(student.lm_head(features), student(tokens).logits, **EXACT)
    torch.testing.assert_close(output.logits, plain.logits, **EXACT)
    torch.testing.assert_close(output.memory, plain.memory, **EXACT)
    assert student(tokens, output_hidden_states=False).hidden_states is None


def test_tuples_if_the_configuration_asks(student, tokens):
    expected = student(tokens, labels=tokens)
    student.config.return_dict = False
    loss, logits, cache = student(tokens, labels=tokens)
    torch.testing.assert_close((loss, logits), (expected.loss, expected.logits))
    assert cache.get_seq_length() == tokens.shape[1]
    generated = student.generate(tokens, max_new_tokens=3, do_sample=False)
    student.config.return_dict = True
    assert generated.equal(student.generate(tokens, max_new_tokens=3, do_sample=False))


def test_head_tied_to_the_embedding(student, tokens, tmp_path):
    config = type(student.config)(**{**student.config.to_dict(), "tie_word_embeddings": True})
    tied = SmtRnnForCausalLM(config).eval()
    tied.resize_token_embeddings(23)
    tied.save_pretrained(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    for model in (tied, loaded):
        assert model.lm_head.weight is model.model.embed_tokens.weight and len(model.lm_head.weight) == 23
    torch.testing.assert_close(loaded(tokens + 3).logits, tied(tokens + 3).logits, rtol=0, atol=0)
    assert student.lm_head.weight is not student.model.embed_tokens.weight


def test_greedy_generation_is_the_naive_loop(student, tokens):
    sequence = tokens[0, :4]
    for _ in range(10):
        sequence = torch.cat([sequence, naive_logits(student, sequence)[0][-1:].argmax(dim=-1)])
    generated = student.generate(tokens[:1, :4], max_new_tokens=10, do_sample=False)
    assert generated[0].tolist() == sequence.tolist()


def test_auto_classes_load_what_was_saved(student, tokens, tmp_path):
    student.save_pretrained(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert isinstance(loaded, SmtRnnForCausalLM)
    torch.testing.assert_close(loaded(tokens).logits, student(tokens).logits, rtol=0, atol=0)
    base = AutoModel.from_pretrained(tmp_path)
    expected = student.model(tokens).last_hidden_state
    torch.testing.assert_close(base(tokens).last_hidden_state, expected, rtol=0, atol=0)


def test_clear_errors(student, tokens):
    with pytest.raises(ValueError, match="exactly one"):
        student(tokens, inputs_embeds=student.model.embed_tokens(tokens))
    with pytest.raises(ValueError, match="empty"):
        student(tokens[:, :0])
    with pytest.raises(TypeError, match="DynamicCache"):
        student(tokens, cache=DynamicCache())
    with pytest.raises(NotImplementedError, match="cannot forget"):
        SmtRnnCache().layers[0].crop(1)
