"""A teacher on a language model: causal, its documents apart, begun from the model's predictions, saved whole."""

import pytest
import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import AutoConfig, BertConfig, LlamaConfig, MambaConfig

from smt_hf import SmtForPreTraining, SmtTeacherConfig, SmtTeacherModel
from smt_hf.models.backbone_smt import check_backbone, make_backbone, read_backbone
from tests.backbones import MODELS, language_model, model_on

EXACT = {"rtol": 0, "atol": 1e-9}
DOCUMENTS = torch.tensor([[0] * 14, [0] * 6 + [1] * 8, [-1] * 2 + [0] * 5 + [1] * 4 + [-1] * 3])


@pytest.fixture(params=MODELS)
def backbone(request):
    return language_model(request.param)


@pytest.fixture
def model(backbone):
    return model_on(backbone)


def logits_alone(backbone, document):
    """The language model's own logits of one document, after its bos token if it has one."""
    bos = backbone.config.bos_token_id
    ids = document if bos is None else torch.cat([torch.tensor([bos]), document])
    return backbone(ids[None]).logits[0, 0 if bos is None else 1 :]


def test_documents_are_read_as_each_alone(backbone, tokens):
    hidden, start, logits, start_logits = read_backbone(backbone, tokens, DOCUMENTS, logits=True)
    for row, documents in enumerate(DOCUMENTS):
        for document in set(documents.tolist()) - {-1}:
            inside = documents == document
            torch.testing.assert_close(logits[row, inside], logits_alone(backbone, tokens[row, inside]), **EXACT)
    hidden_alone, start_alone, *nothing = read_backbone(backbone, tokens, DOCUMENTS, logits=False)
    torch.testing.assert_close(hidden_alone, hidden, **EXACT)
    assert nothing == [None, None] and (start is None) == (start_logits is None) == (
        backbone.config.bos_token_id is None
    )


def test_rows_of_one_document_need_no_documents(model, tokens):
    """Without them nothing is masked but what is ahead, and all rows share the teacher's mask."""
    one, positions = torch.zeros_like(tokens), torch.tensor([-1, 3, 13])
    for found, expected in zip(
        read_backbone(model.teacher.backbone, tokens, None, logits=True),
        read_backbone(model.teacher.backbone, tokens, one, logits=True),
        strict=True,
    ):
        assert (found is None) == (expected is None)
        assert found is None or torch.allclose(found, expected, **EXACT)
    expected = model.teacher.encode(tokens, positions, documents=one)
    torch.testing.assert_close(model.teacher.encode(tokens, positions), expected, **EXACT)
    own = positions.expand(len(tokens), -1)
    torch.testing.assert_close(model.teacher.encode(tokens, own), expected, **EXACT)


@pytest.mark.parametrize("t", [-1, 0, 7])
def test_causal_to_the_bit(model, tokens, t):
    other = tokens.clone()
    other[:, t + 1 :] = (other[:, t + 1 :] + 7) % 20
    positions = torch.arange(-1, t + 1)
    before, after = (model.teacher.encode(ids, positions) for ids in (tokens, other))
    assert before.equal(after)
    assert t < 0 or not model.teacher.encode(other, torch.tensor([13])).equal(
        model.teacher.encode(tokens, torch.tensor([13]))
    )


def test_documents_and_positions_apart(model, tokens):
    positions = torch.arange(-1, 14)
    together = model.teacher.encode(tokens, positions, documents=DOCUMENTS)
    for row, documents in enumerate(DOCUMENTS):
        for document in set(documents.tolist()) - {-1}:
            columns = (documents == document).nonzero()[:, 0]
            alone = model.teacher.encode(tokens[row : row + 1, columns], torch.arange(len(columns)))
            # the tower's rotary positions are relative: where a document stands does not matter
            torch.testing.assert_close(together[row : row + 1, columns + 1], alone, **EXACT)


def test_it_begins_where_the_backbone_is(backbone, tokens):
    """The memory's readout is nearly the backbone's own prediction."""
    model = model_on(backbone)
    output = model.teacher(tokens, torch.arange(14), output_backbone_logits=True)
    log_p, log_q = (
        logits.log_softmax(-1) for logits in (output.backbone_logits, model.teacher.readout(output.memory))
    )
    divergence = (log_p.exp() * (log_p - log_q)).sum(-1).mean()
    uniform = (log_p.exp() * log_p).sum(-1).mean() + torch.tensor(20.0).log()
    assert divergence < 0.05 * uniform
    plain = model_on(backbone, carry_hidden_state=False)
    log_q = plain.teacher.readout(plain.teacher.encode(tokens, torch.arange(14))).log_softmax(-1)
    assert (log_p.exp() * (log_p - log_q)).sum(-1).mean() > 5 * divergence
    assert model.student.model.embed_tokens.weight.equal(model.teacher.embed_tokens.weight)


@pytest.mark.parametrize("hidden_size", [16, 32, 64])
def test_widths_that_differ(tokens, hidden_size):
    model = model_on(language_model(), hidden_size=hidden_size)
    projection = model.teacher.backbone_projection.weight
    gram = projection @ projection.T if hidden_size <= 48 else projection.T @ projection
    torch.testing.assert_close(gram, torch.eye(len(gram), dtype=gram.dtype), rtol=0, atol=1e-5)
    assert model.teacher.encode(tokens, torch.tensor([3])).shape == (3, 1, 3, hidden_size)


def test_saved_and_loaded(model, tokens, tmp_path):
    positions = torch.arange(-1, 14)
    expected = model.teacher.encode(tokens, positions)
    model.save_pretrained(tmp_path / "joint")
    loaded = SmtForPreTraining.from_pretrained(tmp_path / "joint", dtype=torch.float64)
    torch.testing.assert_close(loaded.teacher.encode(tokens, positions), expected, **EXACT)
    assert type(loaded.config.teacher_config.backbone_config) is type(model.config.teacher_config.backbone_config)
    model.teacher.save_pretrained(tmp_path / "teacher")
    alone = SmtTeacherModel.from_pretrained(tmp_path / "teacher", dtype=torch.float64)
    torch.testing.assert_close(alone.encode(tokens, positions), expected, **EXACT)
    student = model.export_student()
    torch.testing.assert_close(
        student.initial_memory, model.teacher.encode(tokens[:1], torch.tensor([-1]))[0, 0], **EXACT
    )


def test_dropout_of_a_frozen_backbone(tokens):
    model = model_on(language_model("gpt2", resid_pdrop=0.5)).train()
    positions = torch.arange(14)
    assert not model.teacher.encode(tokens, positions).equal(model.teacher.encode(tokens, positions))
    model.teacher.backbone.requires_grad_(False)
    model.train()
    assert model.teacher.encode(tokens, positions).equal(model.teacher.encode(tokens, positions))


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("bert", "BertLMHeadModel sees later tokens"),
        ("electra", "ElectraForCausalLM sees later tokens"),
        ("jamba", "JambaForCausalLM sees other documents in the same row"),
        ("recurrent_gemma", "RecurrentGemmaForCausalLM sees other documents in the same row"),
        ("xlm", "XLMWithLMHeadModel cannot read rows of documents"),
    ],
)
@pytest.mark.parametrize("bos_token_id", [None, 1])
def test_language_models_that_see_too_much(kind, reason, bos_token_id):
    sizes = {
        "vocab_size": 30,
        "hidden_size": 32,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "intermediate_size": 32,
    }
    config = AutoConfig.for_model(kind, **sizes, bos_token_id=bos_token_id, pad_token_id=None, eos_token_id=None)
    with pytest.raises(ValueError, match=reason):
        check_backbone(make_backbone(config))


@pytest.mark.parametrize("length", [3, 4, 9, 24, 25, 60])
def test_language_models_of_short_windows(length):
    """No row is longer than the positions that they have."""
    sizes = {"vocab_size": 30, "n_embd": 32, "n_layer": 2, "n_head": 2, "bos_token_id": 1, "eos_token_id": None}
    check_backbone(make_backbone(AutoConfig.for_model("gpt2", **sizes, n_positions=length)))
    encoder = {"vocab_size": 30, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    with pytest.raises(ValueError, match="sees later tokens"):
        check_backbone(make_backbone(AutoConfig.for_model("bert", **encoder, max_position_embeddings=length)))


def test_checked_as_it_is(backbone):
    backbone.train()
    check_backbone(backbone)
    assert backbone.training


def test_what_cannot_be_a_backbone(tokens):
    llama = LlamaConfig(vocab_size=30, hidden_size=16, num_attention_heads=2)
    with pytest.raises(StrictDataclassError, match="vocab_size=20 is not the backbone's 30"):
        SmtTeacherConfig(vocab_size=20, backbone_config=llama)
    with pytest.raises(StrictDataclassError, match="encoder_attention='bidirectional' cannot be used with a backbone"):
        SmtTeacherConfig(vocab_size=30, backbone_config=llama, encoder_attention="bidirectional")
    with pytest.raises(ValueError, match="model_type='no_such_model' is not a model"):
        SmtTeacherConfig(vocab_size=30, backbone_config={"model_type": "no_such_model"})
    with pytest.raises(TypeError, match="backbone_config='gpt2' is neither"):
        SmtTeacherConfig(vocab_size=30, backbone_config="gpt2")
    with pytest.raises(ValueError, match="MambaForCausalLM takes no position_ids"):
        make_backbone(MambaConfig(vocab_size=30, hidden_size=16, num_hidden_layers=1))
    with pytest.raises(ValueError, match="weights do not match its configuration"):
        model_on(language_model()).start_from_backbone(language_model(num_hidden_layers=1))
    plain = SmtTeacherModel(
        SmtTeacherConfig(vocab_size=20, hidden_size=32, num_encoder_layers=1, num_decoder_layers=1)
    )
    with pytest.raises(ValueError, match="this teacher has no backbone"):
        plain(tokens, output_backbone_logits=True)


def test_an_encoder_model_is_no_language_model():
    backbone = make_backbone(
        BertConfig(vocab_size=30, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, is_decoder=True)
    )
    ids = torch.randint(30, (1, 8))
    hidden = read_backbone(backbone.eval(), ids, None, logits=False)[0]
    other = ids.clone()
    other[0, 7] = (other[0, 7] + 1) % 30
    torch.testing.assert_close(read_backbone(backbone, other, None, logits=False)[0][:, :7], hidden[:, :7])
