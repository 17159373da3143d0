import random

import pytest
from tokenizers import Tokenizer, models
from transformers import AutoTokenizer, ByT5Tokenizer, PreTrainedTokenizerFast

from smt_hf.data import byte_tokenizer, is_byte_tokenizer, load_tokenizer
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
    with pytest.raises(InputError, match="cannot load a tokenizer from '/no/such/folder': no such folder"):
        load_tokenizer("/no/such/folder")
    with pytest.raises(InputError, match="save one there with tokenizer.save_pretrained") as caught:
        load_tokenizer(str(tmp_path))
    assert "\n" not in str(caught.value)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match="cannot load a tokenizer from 'nobody/nothing'"):
        load_tokenizer("nobody/nothing")


def test_load_tokenizer_needs_an_eos_token(tmp_path):
    backend = Tokenizer(models.WordLevel({"a": 0, "b": 1}, unk_token="a"))
    PreTrainedTokenizerFast(tokenizer_object=backend).save_pretrained(tmp_path)
    with pytest.raises(InputError, match="has no eos token"):
        load_tokenizer(str(tmp_path))
