"""Many prompts without a server."""

import torch

from smt_hf.inference import SamplingParams, write_many

from .conftest import alone


def test_many_prompts_are_continued_as_each_alone(writer, tokenizer, capsys):
    prompts = [f"{number} red planes" for number in range(9)]
    params = SamplingParams(max_new_tokens=15, temperature=0.8, seed=4, n=2)
    answers = write_many(writer, tokenizer, prompts, params, max_rows=4, progress=True)
    for prompt, (first, second) in zip(prompts, answers, strict=True):
        ids = list(prompt.encode())
        assert first.ids == alone(writer, ids, max_new_tokens=15, temperature=0.8, seed=4)
        assert second.ids == alone(writer, ids, max_new_tokens=15, temperature=0.8, seed=5)
    assert "18/18" in capsys.readouterr().err


def test_they_go_on_from_a_memory(writer, tokenizer):
    memory = writer.read(torch.tensor([list(b"Once upon a time")]))
    params = SamplingParams(max_new_tokens=15, temperature=0)
    texts = [answers[0].text for answers in write_many(writer, tokenizer, ["", "and"], params, memory)]
    ids = tokenizer("and", return_tensors="pt").input_ids
    expected = writer.generate(ids, memory=memory, max_new_tokens=15, do_sample=False)[0, 3:]
    assert texts[1] == tokenizer.decode(expected, skip_special_tokens=True) and texts[0] != texts[1]
