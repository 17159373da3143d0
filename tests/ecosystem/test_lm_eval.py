"""lm-eval's `hf` backend on tasks of one's own, against values straight from the logits."""

import copy
import json
import math

import pytest
import torch
import yaml

pytest.importorskip("lm_eval")

import lm_eval
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

CHOICES = [
    {"question": "The cat sat on the", "choices": [" mat", " moon today", " x"], "answer": 0},
    {"question": "Dogs", "choices": [" run", " fly over the house", " y"], "answer": 2},
    {"question": "It rained for the whole long day, so she took an", "choices": [" oar", " umbrella"], "answer": 1},
]
PROMPTS = [{"prompt": prompt, "target": "z"} for prompt in ("Once upon", "A", "The cat sat on the mat and")]
TEXTS = [{"text": text} for text in ("A short text.", "Ab", "A text that is longer than the others, ü and all.")]
TASKS = {
    "choices": {
        "output_type": "multiple_choice",
        "doc_to_text": "{{question}}",
        "doc_to_choice": "{{choices}}",
        "doc_to_target": "{{answer}}",
        "target_delimiter": "",
        "metric_list": [{"metric": "acc"}, {"metric": "acc_norm"}],
    },
    "writing": {
        "output_type": "generate_until",
        "doc_to_text": "{{prompt}}",
        "doc_to_target": "{{target}}",
        "generation_kwargs": {"until": ["\n"], "do_sample": False, "max_gen_toks": 8},
        "metric_list": [{"metric": "exact_match"}],
    },
    "perplexity": {
        "output_type": "loglikelihood_rolling",
        "doc_to_text": "",
        "doc_to_target": "{{text}}",
        "metric_list": [{"metric": name} for name in ("byte_perplexity", "bits_per_byte")],
    },
}
DATA = {"choices": CHOICES, "writing": PROMPTS, "perplexity": TEXTS}


@pytest.fixture(scope="module")
def tasks(tmp_path_factory):
    """A folder of tasks, each with its data."""
    folder = tmp_path_factory.mktemp("tasks")
    for name, rows in DATA.items():
        file = folder / f"{name}.jsonl"
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        source = {"task": name, "dataset_path": "json", "test_split": "test"}
        source["dataset_kwargs"] = {"data_files": {"test": str(file)}, "cache_dir": str(folder / "cache")}
        (folder / f"{name}.yaml").write_text(yaml.safe_dump({**source, **TASKS[name]}))
    return TaskManager(include_path=str(folder), include_defaults=False)


def evaluate(tasks, model, model_args=None, **options):
    """Results and samples of the three tasks."""
    output = lm_eval.simple_evaluate(
        model=model,
        model_args=model_args,
        tasks=list(DATA),
        task_manager=tasks,
        device="cpu",
        bootstrap_iters=0,
        **options,
    )
    samples = {name: sorted(output["samples"][name], key=lambda sample: sample["doc_id"]) for name in DATA}
    return output["results"], samples


def harness(student, tokenizer, batch_size, **options):
    return HFLM(pretrained=student, tokenizer=copy.deepcopy(tokenizer), batch_size=batch_size, device="cpu", **options)


@torch.no_grad()
def scored(student, tokenizer, context, text):
    """Log-likelihood of `text` after `context`, token ids, and whether it is the greedy continuation."""
    target = torch.tensor(tokenizer(text).input_ids)
    sequence = torch.cat([torch.tensor(context), target])
    logits = student(sequence[None, :-1]).logits[0, len(context) - 1 :].log_softmax(dim=-1)
    return logits.gather(1, target[:, None]).sum().item(), logits.argmax(dim=-1).equal(target)


@pytest.fixture(scope="module", params=[1, 4])
def evaluated(request, tasks, exact_student, tokenizer):
    return evaluate(tasks, harness(exact_student, tokenizer, request.param))


def test_choices(evaluated, exact_student, tokenizer):
    results, samples = evaluated
    correct = {"acc": 0, "acc_norm": 0}
    for sample, row in zip(samples["choices"], CHOICES, strict=True):
        context = tokenizer(row["question"]).input_ids
        expected = [scored(exact_student, tokenizer, context, choice) for choice in row["choices"]]
        assert [value for ((value, _),) in sample["resps"]] == pytest.approx(
            [value for value, _ in expected], rel=1e-9
        )
        assert [greedy for ((_, greedy),) in sample["resps"]] == [greedy for _, greedy in expected]
        per_byte = [value / len(choice) for (value, _), choice in zip(expected, row["choices"], strict=True)]
        for name, values in (("acc", [value for value, _ in expected]), ("acc_norm", per_byte)):
            correct[name] += values.index(max(values)) == row["answer"]
    for name, count in correct.items():
        assert results["choices"][f"{name},none"] == pytest.approx(count / len(CHOICES))


def test_generation(evaluated, exact_student, tokenizer):
    for sample, row in zip(evaluated[1]["writing"], PROMPTS, strict=True):
        inputs = tokenizer(row["prompt"], return_tensors="pt")
        written = exact_student.generate(**inputs, max_new_tokens=8, do_sample=False)[0, inputs.input_ids.shape[1] :]
        expected = tokenizer.decode(written, skip_special_tokens=True).split("\n")[0]
        assert sample["resps"] == [[expected]] and expected


def test_perplexity(evaluated, exact_student, tokenizer):
    results, samples = evaluated
    expected = [scored(exact_student, tokenizer, [tokenizer.bos_token_id], row["text"])[0] for row in TEXTS]
    assert [sample["resps"][0][0] for sample in samples["perplexity"]] == pytest.approx(expected, rel=1e-9)
    nats_per_byte = -sum(expected) / sum(len(row["text"].encode()) for row in TEXTS)
    assert results["perplexity"]["bits_per_byte,none"] == pytest.approx(nats_per_byte / math.log(2), rel=1e-9)
    assert results["perplexity"]["byte_perplexity,none"] == pytest.approx(math.exp(nats_per_byte), rel=1e-9)


def test_a_saved_folder(tasks, student_folder, exact_student, tokenizer):
    """By name, as the command line does."""
    by_name = evaluate(tasks, "hf", f"pretrained={student_folder},max_length=65536", batch_size=4)
    by_hand = evaluate(tasks, harness(exact_student, tokenizer, 4))
    assert [sample["resps"] for name in DATA for sample in by_name[1][name]] == [
        sample["resps"] for name in DATA for sample in by_hand[1][name]
    ]


def test_long_texts_are_cut_unless_a_length_is_given(exact_student, tokenizer):
    """The harness takes 2,048 tokens for a model that declares no limit; a recurrent one has none."""
    assert harness(exact_student, tokenizer, 1).max_length == 2048
    text = "The cat sat on the mat. " * 8
    request = Instance("loglikelihood_rolling", {}, (text,), 0)
    whole, cut = (
        harness(exact_student, tokenizer, 4, max_length=length).loglikelihood_rolling([request], disable_tqdm=True)
        for length in (65536, 64)
    )
    expected, _ = scored(exact_student, tokenizer, [tokenizer.bos_token_id], text)
    assert whole == pytest.approx([expected], rel=1e-9)
    assert cut != pytest.approx([expected], rel=1e-6)
