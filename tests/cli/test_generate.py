"""`smt-hf generate --prompts`: many prompts at once."""

import json
import re

import pytest
import torch

from smt_hf.checkpoints import load_student
from smt_hf.cli.main import main
from smt_hf.data import load_tokenizer

PROMPTS = ["Tom had a dog.", "One day", "é", "The red plane flew over the house"]


@pytest.fixture
def write(dmt_run, capsys):
    def run(*words):
        capsys.readouterr()
        code = main(["generate", str(dmt_run), "--max_new_tokens", "9", *map(str, words)])
        return code, capsys.readouterr()

    return run


def texts(printed):
    """The texts between the numbered lines."""
    parts = re.split(r"^--- (\d+) ---\n", printed.out, flags=re.MULTILINE)
    assert parts[0] == "" and parts[1::2] == [str(number) for number in range(1, len(parts) // 2 + 1)]
    return [part.removesuffix("\n") for part in parts[2::2]]


def alone(folder, prompt, seed=0, **options):
    """What `generate()` makes of one prompt."""
    student, tokenizer = load_student(str(folder)).eval(), load_tokenizer(str(folder))
    ids = tokenizer(prompt, return_tensors="pt", add_special_tokens=False).input_ids
    torch.manual_seed(seed)
    sequence = student.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=9, **options)[0]
    return prompt + tokenizer.decode(sequence[ids.shape[1] :], skip_special_tokens=True)


def test_every_line_of_a_file_is_continued_as_it_would_be_alone(write, dmt_run, tmp_path):
    (tmp_path / "prompts.txt").write_text("\n".join(PROMPTS[:2]) + "\n\n" + "\n".join(PROMPTS[2:]) + "\n")
    code, printed = write("--prompts", tmp_path / "prompts.txt", "--temperature", 0)
    assert code == 0 and texts(printed) == [alone(dmt_run, prompt, do_sample=False) for prompt in PROMPTS]
    assert "4/4" in printed.err


def test_samples_of_each_prompt_draw_from_seeds_of_their_own(write, dmt_run, tmp_path):
    rows = [json.dumps({"text": prompt}) for prompt in PROMPTS]
    (tmp_path / "prompts.jsonl").write_text("\n".join(rows))
    sampling = {"do_sample": True, "temperature": 0.7, "top_p": 0.95, "top_k": 0}
    expected = [alone(dmt_run, prompt, seed, **sampling) for prompt in PROMPTS for seed in (3, 4)]
    code, printed = write("--prompts", tmp_path / "prompts.jsonl", "--num_samples", 2, "--seed", 3)
    assert code == 0 and texts(printed) == expected
    one = tmp_path / "one.txt"  # of one prompt the text is streamed
    one.write_text(PROMPTS[0])
    code, printed = write("--prompts", one, "--seed", 3)
    assert code == 0 and printed.out == expected[0] + "\n"


def test_all_of_them_go_on_from_a_memory(write, dmt_run, tmp_path):
    (tmp_path / "chapter.txt").write_text("Once there was a cat. ")
    (tmp_path / "prompts.txt").write_text("\n".join(PROMPTS))
    words = ["--text_file", tmp_path / "chapter.txt", "--temperature", 0]
    code, printed = write("--prompts", tmp_path / "prompts.txt", *words)
    whole = [alone(dmt_run, "Once there was a cat. " + prompt, do_sample=False) for prompt in PROMPTS]
    assert code == 0 and ["Once there was a cat. " + text for text in texts(printed)] == whole


def test_what_it_refuses(write, tmp_path):
    def fails(*words, says):
        code, printed = write(*words)
        assert code == 2 and says in printed.err.strip().splitlines()[-1], printed.err

    fails("--prompts", tmp_path / "none.txt", says="there is no file")
    (tmp_path / "empty.txt").write_text("\n\n")
    fails("--prompts", tmp_path / "empty.txt", says="contains no documents")
    (tmp_path / "rows.jsonl").write_text('{"words": "Tom"}')
    fails("--prompts", tmp_path / "rows.jsonl", says="text")
    fails("Tom", "--prompts", tmp_path / "empty.txt", says="are both given")
