import json
import random

import pytest
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, ByT5Tokenizer, PreTrainedTokenizerFast, pipeline

from smt_hf import SmtRnnConfig, SmtRnnForCausalLM
from smt_hf.data import byte_tokenizer, encode_documents, is_byte_tokenizer, load_tokenizer, without_special_tokens
from smt_hf.errors import InputError

TEXT = "héllo <|endoftext|> \u200d😀\x00 , n't\r\n\t<|pad|> end ."


def test_ids_are_utf8_bytes_and_specials_follow():
    tokenizer = byte_tokenizer()
    assert tokenizer(TEXT, split_special_tokens=True).input_ids == list(TEXT.encode())
    assert (tokenizer.eos_token_id, tokenizer.bos_token_id, tokenizer.pad_token_id) == (256, 256, 257)
    assert len(tokenizer) == 258
    assert tokenizer("a<|endoftext|>b").input_ids == [97, 256, 98]


def test_decoding_is_exact():
    tokenizer = byte_tokenizer()
    assert tokenizer.decode(list(TEXT.encode())) == TEXT
    draw = random.Random(0)
    for _ in range(50):
        points = [draw.choice([draw.randrange(0x80), draw.randrange(0xD800), draw.randrange(0x10000, 0x110000)])]
        text = "".join(map(chr, points * 3)) + " a"
        assert tokenizer.decode(tokenizer(text).input_ids) == text


def test_invalid_utf8_decodes_to_replacement_characters():
    assert byte_tokenizer().decode([0xFF, 65, 0xC3]) == "\ufffdA\ufffd"
    assert byte_tokenizer().decode([65, 256, 257], skip_special_tokens=True) == "A"


def test_padding_is_on_the_left():
    batch = byte_tokenizer()(["ab", "c"], padding=True, return_tensors="pt")
    assert batch.input_ids.tolist() == [[97, 98], [257, 99]]
    assert batch.attention_mask.tolist() == [[1, 1], [0, 1]]


def test_round_trip_through_auto_tokenizer(tmp_path):
    byte_tokenizer(model_max_length=512).save_pretrained(tmp_path)
    for reloaded in (AutoTokenizer.from_pretrained(tmp_path), load_tokenizer(str(tmp_path))):
        assert is_byte_tokenizer(reloaded)
        assert reloaded(TEXT, split_special_tokens=True).input_ids == list(TEXT.encode())
        assert (reloaded.eos_token_id, reloaded.pad_token_id, reloaded.padding_side) == (256, 257, "left")
        assert reloaded.model_max_length == 512
        assert reloaded.clean_up_tokenization_spaces is False


def test_is_byte_tokenizer_judges_content():
    tokenizer = byte_tokenizer()
    tokenizer(["a", "bc"], padding=True, truncation=True, max_length=4)  # leaves state in the backend
    assert is_byte_tokenizer(tokenizer)
    assert is_byte_tokenizer(load_tokenizer("byte"))
    assert not is_byte_tokenizer(ByT5Tokenizer())
    tokenizer.add_tokens(["new"])
    assert not is_byte_tokenizer(tokenizer)


def test_load_tokenizer_errors(tmp_path, monkeypatch):
    with pytest.raises(InputError, match="there is no folder '/no/such/folder' here: pass"):
        load_tokenizer("/no/such/folder")
    with pytest.raises(InputError, match="save one there with tokenizer.save_pretrained") as caught:
        load_tokenizer(str(tmp_path))
    assert "\n" not in str(caught.value)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match="there is no folder 'nobody/nothing' here, and the Hub cannot be reached"):
        load_tokenizer("nobody/nothing")


def test_load_tokenizer_needs_an_eos_token(tmp_path):
    backend = Tokenizer(models.WordLevel({"a": 0, "b": 1}, unk_token="a"))
    PreTrainedTokenizerFast(tokenizer_object=backend).save_pretrained(tmp_path)
    with pytest.raises(InputError, match="has no eos token"):
        load_tokenizer(str(tmp_path))


@pytest.mark.parametrize("name", ["", None, 5, ["byte"], "~nobody-here/x", "n" * 5000])
def test_names_that_cannot_be(name):
    with pytest.raises(InputError) as caught:
        load_tokenizer(name)
    assert "\n" not in str(caught.value)


def test_paths_of_all_kinds(tmp_path, monkeypatch):
    byte_tokenizer().save_pretrained(tmp_path / "mine")
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in (tmp_path / "mine", "~/mine"):
        assert is_byte_tokenizer(load_tokenizer(name))


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("tokenizer.json", "[]"),
        ("tokenizer.json", "{}"),
        ("tokenizer.json", "{bad"),
        ("tokenizer.json", "null"),
        ("tokenizer.json", '{"model": {"type": "BPE"}}'),
        ("tokenizer_config.json", "[]"),
        ("tokenizer_config.json", "{bad"),
        ("tokenizer_config.json", '{"tokenizer_class": 5}'),
        ("tokenizer_config.json", '{"eos_token": 5}'),
        ("tokenizer_config.json", '{"extra_special_tokens": 5}'),
    ],
)
def test_damaged_files(tmp_path, file, content):
    byte_tokenizer().save_pretrained(tmp_path)
    (tmp_path / file).write_text(content)
    with pytest.raises(InputError) as caught:
        load_tokenizer(tmp_path)
    assert str(tmp_path) in str(caught.value) and "\n" not in str(caught.value) and len(str(caught.value)) < 500


@pytest.mark.parametrize("where", ["tokenizer_config.json", "config.json"])
def test_no_code_that_comes_with_a_tokenizer_is_run_or_offered(tmp_path, where, monkeypatch):
    byte_tokenizer().save_pretrained(tmp_path)
    (tmp_path / "theirs.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass T: pass\nclass C: pass\n")
    file = tmp_path / where
    config = json.loads(file.read_text()) if file.exists() else {"model_type": "theirs"}
    config["auto_map"] = {"AutoTokenizer": ["theirs.T", None], "AutoConfig": "theirs.C"}
    config.pop("tokenizer_class", None)
    file.write_text(json.dumps(config))
    asked = []
    monkeypatch.setattr("builtins.input", lambda *prompt: asked.append(prompt) or "y")
    if where == "config.json":  # the tokenizer itself needs no code
        assert is_byte_tokenizer(load_tokenizer(tmp_path))
    else:
        with pytest.raises(InputError, match="it needs custom code, which is not run") as caught:
            load_tokenizer(tmp_path)
        assert "trust_remote_code" not in str(caught.value)
    assert not asked and not (tmp_path / "ran").exists()


# ---- tokenizers of all kinds are saved as they were used --------------------------------------------------------------

SPECIALS = ["<unk>", "<s>", "</s>", "<pad>", "<cls>", "<sep>", "<mask>", "<|endoftext|>", "<|startoftext|>"]


def byte_level_bpe(*steps, **options):
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    text = ["one day a cat met a dog "] * 20
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    backend.train_from_iterator(
        text, trainers.BpeTrainer(vocab_size=320, special_tokens=SPECIALS, initial_alphabet=alphabet)
    )
    if steps:
        backend.post_processor = processors.Sequence(list(steps))
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>", **options)


def template(single, pair="$A $B"):
    return processors.TemplateProcessing(single=single, pair=pair, special_tokens=[("<s>", 1), ("</s>", 2)])


def of_class(name, **options):
    """A small tokenizer of a class that makes its own backend."""
    tokenizer = getattr(transformers, name)
    if tokenizer.model is models.Unigram:
        words = [(token, 0.0) for token in ("<pad>", "</s>", "<unk>")] + [("▁", -2.0)]
        return tokenizer(vocab=words + [(letter, -3.0) for letter in "abcdefghijklmnopqrstuvwxyz."], **options)
    if tokenizer.model is models.WordPiece:
        words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "<unk>", "one", "day", "a", "cat", "met", "dog", "."]
        return tokenizer(vocab={word: i for i, word in enumerate(words)}, eos_token="[SEP]", **options)
    bpe = json.loads(byte_level_bpe().backend_tokenizer.to_str())["model"]
    return tokenizer(vocab=bpe["vocab"], merges=[tuple(merge) for merge in bpe["merges"]], **options)


TOKENIZERS = {
    "none": byte_level_bpe,
    "GPT-2's": lambda: byte_level_bpe(processors.ByteLevel(trim_offsets=False)),
    "Llama 3's": lambda: byte_level_bpe(processors.ByteLevel(trim_offsets=True), template("<s> $A", "<s> $A <s> $B")),
    "both ends": lambda: byte_level_bpe(template("<s> $A </s>")),
    "Roberta's": lambda: byte_level_bpe(processors.RobertaProcessing(("</s>", 2), ("<s>", 1), trim_offsets=True)),
    "Bert's": lambda: byte_level_bpe(processors.BertProcessing(("</s>", 2), ("<s>", 1))),
    "asked to add": lambda: byte_level_bpe(add_bos_token=True, add_eos_token=True),
    **{name: lambda name=name: of_class(name, add_bos_token=True) for name in ("LlamaTokenizer", "GPT2Tokenizer", "CohereTokenizer", "GPTNeoXTokenizer")},
    **{name: lambda name=name: of_class(name) for name in ("GemmaTokenizer", "Qwen2Tokenizer", "RobertaTokenizer", "CLIPTokenizer", "T5Tokenizer", "XLMRobertaTokenizer", "MBartTokenizer", "XLNetTokenizer", "BigBirdTokenizer", "PegasusTokenizer", "BertTokenizer", "MPNetTokenizer")},
}  # fmt: skip
PROMPTS = ["one day a cat.", " a  dog ", "one </s> <s> [SEP] day", "", "a"]


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_saved_as_it_was_used(tmp_path, kind):
    given = TOKENIZERS[kind]()
    given.chat_template = "{{ messages }}"
    given.save_pretrained(tmp_path / "given")
    given = AutoTokenizer.from_pretrained(tmp_path / "given")  # what the class makes of its files
    used = load_tokenizer(tmp_path / "given")
    used.save_pretrained(tmp_path / "used")
    for tokenizer in (used, AutoTokenizer.from_pretrained(tmp_path / "used"), load_tokenizer(tmp_path / "used")):
        for text in PROMPTS:
            ids = given(text, add_special_tokens=False)["input_ids"]
            assert tokenizer(text)["input_ids"] == ids
            trained, _, _ = encode_documents([text], given)
            assert tokenizer(text, split_special_tokens=True)["input_ids"] + [given.eos_token_id] == trained.tolist()
            assert tokenizer.decode(ids) == given.decode(ids)
            assert tokenizer.decode(ids, skip_special_tokens=True) == given.decode(ids, skip_special_tokens=True)
            offsets = [
                t(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
                for t in (tokenizer, given)
            ]
            assert offsets[0] == offsets[1]
        assert tokenizer("a", "a")["input_ids"] == given("a", "a", add_special_tokens=False)["input_ids"]
        assert (len(tokenizer), tokenizer.special_tokens_map) == (len(given), given.special_tokens_map)
        assert sorted(tokenizer.all_special_ids) == sorted(given.all_special_ids)
        assert (tokenizer.chat_template, tokenizer.padding_side) == (given.chat_template, given.padding_side)
        assert tokenizer.model_max_length == given.model_max_length


def test_one_that_adds_nothing_is_left_alone_and_none_is_changed():
    plain = byte_tokenizer()
    assert without_special_tokens(plain) is plain
    adding = TOKENIZERS["both ends"]()
    assert without_special_tokens(adding)("a")["input_ids"] == adding("a")["input_ids"][1:-1]
    assert adding("a")["input_ids"][0] == 1


def test_one_that_cannot_be_saved_without_is_refused(tmp_path):
    ByT5Tokenizer().save_pretrained(tmp_path)
    with pytest.raises(
        InputError, match=r"\(ByT5Tokenizer\) adds special tokens to every text, which training does not"
    ):
        load_tokenizer(tmp_path)


def test_pipeline_reads_the_ids_of_training(tmp_path):
    TOKENIZERS["Llama 3's"]().save_pretrained(tmp_path / "given")
    tokenizer = load_tokenizer(tmp_path / "given")
    sizes = {"hidden_size": 16, "num_memory_tokens": 2, "num_updater_layers": 1, "num_readout_layers": 1}
    config = SmtRnnConfig(vocab_size=len(tokenizer), num_attention_heads=2, eos_token_id=2, **sizes)
    SmtRnnForCausalLM(config).save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    write = pipeline("text-generation", str(tmp_path / "model"))
    seen = write("one day a cat", max_new_tokens=2, do_sample=False, return_tensors=True)[0]["generated_token_ids"]
    trained, _, _ = encode_documents(["one day a cat"], tokenizer)
    assert seen[:-2] == trained[:-1].tolist()
