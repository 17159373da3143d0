"""The card of a run: what it says comes from the files beside it."""

import json
import shutil

import pytest
import yaml
from huggingface_hub import ModelCard

from smt_hf.cli.main import main
from smt_hf.errors import InputError
from smt_hf.hub import read_stages, write_card
from smt_hf.hub.record import changed_fields
from smt_hf.training import SmtTrainingArguments


@pytest.fixture(scope="module")
def shared_student(dmt_run, smt_run, stories, tmp_path_factory):
    """A DMT run that was evaluated into its own folder."""
    folder = tmp_path_factory.mktemp("shared") / "student"
    shutil.copytree(dmt_run, folder)
    argv = [str(folder), "--teacher", str(smt_run), "--dataset", str(stories / "valid.txt")]
    argv += ["--cache_dir", str(stories / "cache"), "--context_length", "16", "--rollout_steps", "24"]
    assert main(["evaluate", *argv, "--num_windows", "6", "--output_dir", str(folder / "evaluation")]) == 0
    return folder


def test_a_run_writes_its_card(smt_run, dmt_run):
    for folder, kind in ((smt_run, "A teacher and its recurrent student"), (dmt_run, "A recurrent language model")):
        card = ModelCard.load(folder / "README.md")
        assert kind in card.text and "### SMT" in card.text and "train.txt" in card.text
        assert str(folder.parent) not in card.content
    assert "### DMT" in ModelCard.load(dmt_run / "README.md").text


def test_the_record_tells_every_stage(smt_run, dmt_run):
    stages = read_stages(str(dmt_run))
    assert [stage["command"] for stage in stages] == ["smt", "dmt"]
    assert stages[:1] == read_stages(str(smt_run))
    assert stages[0]["recipe"]["num_transitions"] == 8 and stages[1]["recipe"]["num_sweeps"] == [1, 2]
    assert stages[0]["steps"] == 4 and stages[0]["windows_per_step"] == 4
    assert {"decoding", "dynamics", "readout", "uniformity", "drift"} <= set(stages[0]["losses"])
    log = json.loads((dmt_run / "trainer_state.json").read_text())["log_history"]
    assert stages[1]["losses"]["loss"] == [entry["loss"] for entry in log if "loss" in entry][-1]


def test_the_recipe_of_the_record_runs_again(smt_run, stories, tmp_path):
    recipe = read_stages(str(smt_run))[0]["recipe"] | {"dataset": str(stories / "train.txt"), "eval_dataset": None}
    (tmp_path / "again.yaml").write_text(yaml.safe_dump(recipe))
    argv = ["smt", "--config", str(tmp_path / "again.yaml"), "--output_dir", str(tmp_path / "again")]
    argv += ["--cache_dir", str(stories / "cache"), "--logging_steps", "1", "--save_strategy", "no"]
    assert main(argv) == 0
    again = read_stages(str(tmp_path / "again"))[0]
    assert again["losses"]["loss"] == read_stages(str(smt_run))[0]["losses"]["loss"]


def test_nothing_secret_is_recorded(tmp_path):
    arguments = SmtTrainingArguments(output_dir=str(tmp_path), hub_token="hf_secret", learning_rate=0.5, use_cpu=True)
    recorded = changed_fields(arguments)
    assert recorded["learning_rate"] == 0.5
    assert "hf_secret" not in json.dumps(recorded) and str(tmp_path) not in json.dumps(recorded)


def test_the_metadata_is_the_hubs(shared_student):
    report = json.loads((shared_student / "evaluation" / "evaluation.json").read_text())
    data = ModelCard.load(shared_student / "README.md").data
    assert data.pipeline_tag == "text-generation" and data.library_name == "transformers" and "smt" in data.tags
    results = {result.metric_name: result.metric_value for result in data.eval_results}
    assert results["Loss (nats per token, cold start)"] == report["student_cold"]["nats_per_token"]
    assert results["Drift after 24 steps"] == report["drift"][-1]
    assert data.eval_results[0].dataset_name == "valid.txt" and data.model_name == "student"


def test_the_evaluation_and_its_plot_are_shown(shared_student):
    text = ModelCard.load(shared_student / "README.md").text
    assert "student, cold start" in text and "](evaluation/evaluation.png)" in text
    assert "loss goes from" in text


def test_the_snippets_of_a_card_run(shared_student, monkeypatch, capsys):
    name = str(shared_student)
    write_card(name, name=name)
    text = ModelCard.load(shared_student / "README.md").text
    blocks = [part.split("```")[0] for part in text.split("```python\n")[1:]]
    assert len(blocks) == 2
    exec("\n".join(blocks), {})
    assert capsys.readouterr().out.startswith("Once upon a time")
    write_card(name)


def test_an_edited_card_is_kept(dmt_run, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(dmt_run, folder)
    assert write_card(str(folder), name="me/my-student", license="apache-2.0")
    assert ModelCard.load(folder / "README.md").data.license == "apache-2.0"
    assert 'from_pretrained("me/my-student"' in (folder / "README.md").read_text()
    (folder / "README.md").write_text("My own words.")
    assert not write_card(str(folder))
    assert (folder / "README.md").read_text() == "My own words."


def test_a_model_without_a_record_has_a_card_too(joint, tmp_path):
    joint.teacher.save_pretrained(tmp_path / "teacher")
    assert write_card(str(tmp_path / "teacher"))
    assert "No record of the training" in (tmp_path / "teacher" / "README.md").read_text()


def test_bad_folders_are_named(tmp_path):
    with pytest.raises(InputError, match="has no config.json"):
        write_card(str(tmp_path))
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    with pytest.raises(InputError, match="model of type 'gpt2'"):
        write_card(str(tmp_path))
    (tmp_path / "config.json").write_text('{"model_type": "smt_rnn"}')
    (tmp_path / "evaluation.json").write_text("{}")
    with pytest.raises(InputError, match="is not a report"):
        write_card(str(tmp_path))
    (tmp_path / "training.json").write_text("[1")
    with pytest.raises(InputError, match="not a training record"):
        read_stages(str(tmp_path))
