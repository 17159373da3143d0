"""`smt-hf push` against a server that speaks the Hub's endpoints: what arrives, and what is said when it cannot."""

import hashlib
import json

import pytest
from huggingface_hub import constants

from smt_hf.cli.main import main
from smt_hf.hub.push import explain
from tests.hub.conftest import byte_models
from tests.hub.hub_server import running_server
from tests.hub.repositories import Repository


def push(folder, repo_id, *more):
    return main(["push", str(folder), repo_id, *more])


@pytest.fixture
def refused(this_process, capsys):
    """Checks that a push ends in one line on standard error that has all the words."""

    def check(argv, *words):
        capsys.readouterr()
        assert push(*map(str, argv)) == 2
        lines = capsys.readouterr().err.strip().splitlines()
        assert lines[-1].startswith("smt-hf push: error: ") and "Traceback" not in "".join(lines)
        for word in words:
            assert word in lines[-1], lines[-1]

    return check


def test_the_folder_arrives_without_what_only_training_needs(hub, this_process, student_folder, capsys):
    card = "---\nlibrary_name: transformers\n---\n# A student\n"
    (student_folder / "README.md").write_text(card)
    assert push(student_folder, "user/arrives") == 0
    output = capsys.readouterr().out
    assert f"a student (SmtRnnForCausalLM) is at {hub.url}/user/arrives" in output
    assert 'AutoModelForCausalLM.from_pretrained("user/arrives", trust_remote_code=True)' in output

    files = hub.repositories["user/arrives"].branches["main"].files
    kept = (
        "README.md config.json evaluation.json evaluation.png generation_config.json model.safetensors tokenizer.json"
    )
    code = {path.name for path in student_folder.glob("*.py")}
    assert {*kept.split(), "tokenizer_config.json", ".gitattributes"} | code == set(files)
    assert {"modeling_smt_rnn.py", "configuration_smt_rnn.py"} <= code
    for name, file in files.items():
        if name != ".gitattributes":
            assert file.content == (student_folder / name).read_bytes()
        assert file.is_large == name.endswith((".safetensors", ".png"))
    assert not hub.repositories["user/arrives"].private


def test_large_files_go_by_lfs_and_only_once(hub, this_process, student_folder):
    weights = hashlib.sha256((student_folder / "model.safetensors").read_bytes()).hexdigest()
    hub.storage.pop(weights, None)  # another test may have sent the same
    before = len(hub.log)
    assert push(student_folder, "user/large") == 0
    assert push(student_folder, "user/large-again") == 0
    sent = [path for method, path, status in hub.log[before:] if method == "PUT" and status == 200]
    assert sent.count(f"/storage/{weights}") == 1
    assert hub.requests("POST", r"user/large\.git/info/lfs/verify")


def test_a_second_push_adds_a_commit(hub, this_process, student_folder, capsys):
    assert push(student_folder, "user/twice", "--commit_message", "first") == 0
    assert push(student_folder, "user/twice", "--commit_message", "the same") == 0
    byte_models(seed=1).export_student().save_pretrained(student_folder)
    assert push(student_folder, "user/twice", "--commit_message", "second") == 0
    head = hub.repositories["user/twice"].branches["main"]
    assert [commit.title for commit in head.history()] == ["second", "first", "initial commit"]
    assert head.files["model.safetensors"] != head.parent.files["model.safetensors"]
    assert head.files["tokenizer.json"] == head.parent.files["tokenizer.json"]


def test_private_repositories_branches_and_own_names(hub, this_process, refused, student_folder, capsys):
    assert push(student_folder, "secret", "--private", "true", "--revision", "v1") == 0
    assert '.from_pretrained("user/secret", revision="v1", trust_remote_code=True)' in capsys.readouterr().out
    repository = hub.repositories["user/secret"]
    assert repository.private and "model.safetensors" in repository.branches["v1"].files
    assert list(repository.branches["main"].files) == [".gitattributes"]
    assert push(student_folder, "user/secret", "--revision", "v1") == 0
    assert repository.private

    hub.repositories["user/open"] = Repository("user/open")
    refused([student_folder, "user/open", "--private", "true"], "'user/open' exists and is public", "--private")
    assert list(hub.repositories["user/open"].branches["main"].files) == [".gitattributes"]


def test_teachers_and_smt_runs(hub, this_process, tmp_path, capsys):
    joint = byte_models()
    joint.teacher.save_pretrained(tmp_path / "teacher")
    joint.save_pretrained(tmp_path / "smt", max_shard_size="20KB")
    assert push(tmp_path / "teacher", "user/a-teacher") == push(tmp_path / "smt", "user/an-smt-run") == 0
    output = capsys.readouterr().out
    assert 'AutoModel.from_pretrained("user/a-teacher"' in output
    assert 'AutoModelForPreTraining.from_pretrained("user/an-smt-run"' in output
    shards = [name for name in hub.repositories["user/an-smt-run"].branches["main"].files if "-of-" in name]
    assert len(shards) > 1


def test_folders_that_are_no_model(refused, student_folder, tmp_path):
    refused([tmp_path / "nowhere", "user/x"], "nowhere", "check the path")
    refused([tmp_path, "user/x"], "has no config.json")
    (student_folder / "model.safetensors").rename(student_folder / "moved")
    refused([student_folder, "user/x"], "has no model.safetensors")
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors"}}
    (student_folder / "model.safetensors.index.json").write_text(json.dumps(index))
    refused([student_folder, "user/x"], "has no model-00001-of-00002.safetensors")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.json").write_text(json.dumps({"model_type": "gpt2"}))
    refused([tmp_path / "other", "user/x"], "a model of type 'gpt2'", "a student")
    assert main(["push", str(student_folder)]) == 2
    assert main(["push", "--repo_id", "user/x"]) == 2


def test_names_that_cannot_be(refused, student_folder):
    for name in ("user/a/b", "user/a b", "user/a--b", "https://huggingface.co/user/a", ""):
        refused([student_folder, name], f"repo_id={name!r}", "pass user/name")


def test_tokens(hub, refused, this_process, student_folder):
    refused([student_folder, "user/x", "--token", "hf_wrong"], "refused the token", "hf auth login", "--token")
    refused([student_folder, "user/x", "--token", "hf_tokenofreader"], "may not write to 'user/x'", "--repo_id")
    this_process.delenv("HF_TOKEN")
    refused([student_folder, "user/x"], "no token for the Hub was found", "hf auth login", "HF_TOKEN", "--token")
    assert push(student_folder, "user/given", "--token", "hf_tokenofuser") == 0
    assert "user/x" not in hub.repositories


def test_repositories_of_others(hub, refused, student_folder):
    refused([student_folder, "someone/new"], "may not write to 'someone/new'", "--repo_id")
    hub.repositories["someone/known"] = Repository("someone/known")
    refused([student_folder, "someone/known"], "may not write to 'someone/known'", "a token with write access")


def test_a_hub_that_is_not_there(refused, this_process, student_folder):
    with running_server() as gone:
        pass
    this_process.setattr(constants, "ENDPOINT", gone.url)
    refused([student_folder, "user/x"], f"{gone.url} cannot be reached", "HF_ENDPOINT")
    this_process.setattr(constants, "HF_HUB_OFFLINE", True)
    refused([student_folder, "user/x"], "HF_HUB_OFFLINE is set", "unset it")


def test_what_the_hub_refuses(refused, student_folder):
    (student_folder / "README.md").write_text("---\nlicense: [\n---\n")
    refused(
        [student_folder, "user/bad-card"], "'user/bad-card' could not be uploaded", "Invalid metadata in README.md"
    )


def test_failures_of_an_upload():
    refusal = RuntimeError("Error while uploading 'model.safetensors' to the Hub.")
    refusal.__cause__ = OSError(28, "No space left on device")
    assert "No space left on device" in explain(refusal, "user/x", "https://hub")
    assert "HF_HUB_DISABLE_XET=1" in explain(RuntimeError("xet-write-token: 404"), "user/x", "https://hub")
