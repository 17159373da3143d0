"""`pipeline("text-generation")` and streaming."""

import copy
import json
import os
import subprocess
import sys
import threading

import pytest
import torch
from transformers import TextIteratorStreamer, logging, pipeline

from tests.ecosystem.conftest import CHAT_TEMPLATE

PROMPTS = ["Once upon", "A", "The cat sat on the mat"]
GREEDY = {"max_new_tokens": 10, "do_sample": False}


@pytest.fixture
def generator(exact_student, tokenizer):
    return pipeline("text-generation", model=exact_student, tokenizer=copy.deepcopy(tokenizer))


def continuation(student, tokenizer, prompt, **options):
    inputs = tokenizer(prompt, return_tensors="pt")
    sequence = student.generate(**inputs, **{**GREEDY, **options})[0, inputs.input_ids.shape[1] :]
    return tokenizer.decode(sequence, skip_special_tokens=True)


def test_the_pipeline_writes_what_generate_writes(generator, exact_student, tokenizer):
    expected = continuation(exact_student, tokenizer, PROMPTS[0])
    assert generator(PROMPTS[0], **GREEDY) == [{"generated_text": PROMPTS[0] + expected}]
    assert generator(PROMPTS[0], return_full_text=False, **GREEDY) == [{"generated_text": expected}]


def test_a_ragged_batch_equals_single_runs(generator):
    batch = generator(PROMPTS, batch_size=3, return_full_text=False, **GREEDY)
    assert batch == [generator(prompt, return_full_text=False, **GREEDY) for prompt in PROMPTS]
    assert len({answer[0]["generated_text"] for answer in batch}) == 3


def test_chat(generator, exact_student, tokenizer):
    generator.tokenizer.chat_template = CHAT_TEMPLATE
    messages = [{"role": "user", "content": "Hi"}]
    answer = continuation(exact_student, tokenizer, "user: Hi<|endoftext|>assistant: ")
    expected = [*messages, {"role": "assistant", "content": answer}]
    assert generator(messages, **GREEDY) == [{"generated_text": expected}]
    longer = [{"role": "system", "content": "Be brief"}, *messages]
    batch = generator([messages, longer], batch_size=2, **GREEDY)
    assert batch == [generator(messages, **GREEDY), generator(longer, **GREEDY)]


def ending_early(student, tokenizer, prompt):
    """A copy that writes the end of the text where `student` first writes its fourth greedy token, or another before."""
    ending = copy.deepcopy(student)
    token = student.generate(**tokenizer(prompt, return_tensors="pt"), **GREEDY)[0, len(prompt) + 3]
    rows = torch.tensor([token, student.config.eos_token_id])
    with torch.no_grad():
        ending.lm_head.weight[rows] = student.lm_head.weight[rows.flip(0)]
    return ending


def test_it_stops_at_the_end_and_pads_silently(exact_student, tokenizer, caplog, recwarn):
    ending = ending_early(exact_student, tokenizer, PROMPTS[0])
    expected = [continuation(ending, tokenizer, prompt) for prompt in PROMPTS]
    written = ending.generate(**tokenizer(PROMPTS[0], return_tensors="pt"), **GREEDY)[0, len(PROMPTS[0]) :]
    assert written.tolist().index(256) == len(written) - 1 <= 3
    logging.enable_propagation()
    try:
        generator = pipeline("text-generation", model=ending, tokenizer=tokenizer)
        caplog.clear()
        recwarn.clear()
        batch = generator(PROMPTS, batch_size=3, return_full_text=False, **GREEDY)
    finally:
        logging.disable_propagation()
    assert [answer[0]["generated_text"] for answer in batch] == expected
    assert not caplog.records and not recwarn.list


REMOTE = """
import json, sys
from transformers import pipeline
generator = pipeline("text-generation", model=sys.argv[1], trust_remote_code=True)
print(json.dumps(generator("Once upon", max_new_tokens=10, do_sample=False)))
assert "smt_hf" not in sys.modules and type(generator.model).__module__.startswith("transformers_modules")
"""


def test_a_folder_without_this_package(student_folder, generator, tmp_path):
    environment = {**os.environ, "HF_MODULES_CACHE": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-c", REMOTE, str(student_folder)]
    result = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert json.loads(result.stdout.splitlines()[-1]) == generator("Once upon", **GREEDY)


def test_streaming(exact_student, tokenizer):
    streamer = TextIteratorStreamer(tokenizer, skip_prompt=True, skip_special_tokens=True, timeout=60)
    inputs = tokenizer(PROMPTS[0], return_tensors="pt")
    thread = threading.Thread(target=exact_student.generate, kwargs={**inputs, **GREEDY, "streamer": streamer})
    thread.start()
    pieces = list(streamer)
    thread.join()
    assert "".join(pieces) == continuation(exact_student, tokenizer, PROMPTS[0])
