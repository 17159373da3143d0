"""Signals and second runs: what is kept is told, and nothing is mixed."""

import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from functools import partial

import pytest
from safetensors.torch import load_file

from smt_hf.cli.main import main
from smt_hf.hub import read_stages
from smt_hf.utils.folder_lock import LOCK, hold_folder, release_folders

DEADLINE = 120
HOLD = "import sys; from smt_hf.utils.folder_lock import hold_folder; hold_folder(sys.argv[1]); print('held', flush=True); input()"


@pytest.fixture
def bptt(recipes, tmp_path):
    """The words of a run of 40 steps with a checkpoint every fifth."""
    words = ["bptt", "--config", str(recipes["bptt"]), "--output_dir", str(tmp_path / "run"), "--max_steps", "40"]
    return [*words, "--save_strategy", "steps", "--save_steps", "5"]


def start(words, log):
    """A command in a process of its own, in which Ctrl+C works as at a terminal."""
    command = [sys.executable, "-m", "smt_hf", *words]
    ordinary = partial(signal.signal, signal.SIGINT, signal.default_int_handler)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with log.open("w") as file:
        return subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, env=environment, preexec_fn=ordinary)


def wait_for(condition, process, log):
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert process.poll() is None and time.monotonic() < deadline, log.read_text()
        time.sleep(0.01)


@pytest.mark.parametrize("number, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_keeps_a_checkpoint_and_says_how_to_go_on(bptt, tmp_path, number, code):
    words = [*bptt[:-1], "1000", "--max_steps", "100000"]  # no checkpoint but that of the signal
    log, folder = tmp_path / "log", tmp_path / "run"
    process = start(words, log)
    wait_for(lambda: "'loss'" in log.read_text(), process, log)
    process.send_signal(number)
    assert process.wait(DEADLINE) == code, log.read_text()
    said = log.read_text().splitlines()
    (line,) = [line for line in said if line.startswith("smt-hf bptt: interrupted at step ")]
    step = line.split()[5].rstrip(";")
    assert f"checkpoint-{step} in '{folder}' was saved. Continue with: smt-hf bptt " in line
    assert not any("Traceback" in other for other in said)
    go_on = shlex.split(line.partition("Continue with: smt-hf ")[2])
    assert go_on == [*words, "--resume"]
    assert main([*go_on, "--max_steps", str(int(step) + 2)]) == 0
    assert read_stages(str(folder))[-1]["steps"] == int(step) + 2


def test_nothing_is_kept_where_nothing_is_saved(bptt, tmp_path):
    words = [*bptt, "--save_strategy", "no", "--max_steps", "100000"]
    log = tmp_path / "log"
    process = start(words, log)
    wait_for(lambda: "'loss'" in log.read_text(), process, log)
    process.send_signal(signal.SIGINT)
    assert process.wait(DEADLINE) == 130
    assert "no checkpoint was saved, so there is nothing to resume: start again" in log.read_text()


@pytest.fixture
def held(tmp_path):
    """A folder that another process holds."""
    folder = tmp_path / "run"
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def test_a_second_run_in_one_folder(bptt, held, tmp_path, capsys):
    folder = tmp_path / "run"
    for words in (bptt, [*bptt, "--overwrite"]):
        assert main(words) == 2
        assert f"another run is writing to output_dir='{folder}'" in capsys.readouterr().err
    for words in (["demo", "--overwrite"], ["compare", "--task", "parity", "--stages", '{"smt": {}}']):
        assert main([*words, "--output_dir", str(folder)]) == 2
        assert "another run is writing to" in capsys.readouterr().err
    assert [path.name for path in folder.iterdir()] == [LOCK]
    held.kill()  # the lock ends with its process
    held.wait()
    hold_folder(folder)
    hold_folder(folder)
    release_folders()
    assert not list(folder.iterdir())


def test_overwriting_leaves_nothing_of_the_run_before(bptt, stories, tmp_path):
    """Neither checkpoints nor an evaluation, which a card would give for that of the new weights."""
    folder = tmp_path / "run"
    assert main([*bptt, "--max_steps", "10"]) == 0
    measure = ["--dataset", str(stories / "valid.txt"), "--cache_dir", str(stories / "cache"), "--context_length", "8"]
    measure += ["--rollout_steps", "8", "--num_windows", "2", "--model", str(folder)]
    assert main(["evaluate", *measure, "--output_dir", str(folder / "evaluation")]) == 0
    assert "Loss (nats per token, cold start)" in (folder / "README.md").read_text()
    (folder / "checkpoint-best").mkdir()
    (folder / "notes.txt").write_text("mine")
    assert main([*bptt, "--max_steps", "2", "--overwrite", "--save_strategy", "no"]) == 0
    left = {path.name for path in folder.rglob("*")}
    assert {"checkpoint-best", "notes.txt"} <= left and not {"checkpoint-5", "checkpoint-10", "evaluation.json"} & left
    assert "cold start)" not in (folder / "README.md").read_text()


def test_an_evaluation_of_other_weights_is_not_published(bptt, stories, tmp_path):
    """A resumed run has new weights; so has a folder that somebody else's evaluation was copied into."""
    folder = tmp_path / "run"
    assert main([*bptt, "--max_steps", "10"]) == 0
    measure = ["--dataset", str(stories / "valid.txt"), "--cache_dir", str(stories / "cache"), "--context_length", "8"]
    measure += ["--rollout_steps", "8", "--num_windows", "2", "--model", str(folder), "--output_dir", str(folder)]
    assert main(["evaluate", *measure]) == 0
    assert main([*bptt, "--max_steps", "12", "--resume"]) == 0
    card = (folder / "README.md").read_text()
    assert "is of other weights" in card and "cold start)" not in card
    assert main(["evaluate", *measure]) == 0
    assert "cold start)" in (folder / "README.md").read_text()
    stages = read_stages(str(folder))
    assert stages[-1]["resumed"] == [{"step": 10, "settings": {"max_steps": [10, 12]}}] and stages[-1]["steps"] == 12
    assert "Resumed with other settings" in card


def test_a_finished_run_stays_as_it_is(bptt, tmp_path):
    words, folder = [*bptt, "--max_steps", "10"], tmp_path / "run"
    assert main(words) == 0
    weights, (stage,) = load_file(folder / "model.safetensors"), read_stages(str(folder))
    assert main([*words, "--resume"]) == 0
    again = load_file(folder / "model.safetensors")
    assert all(weights[name].equal(again[name]) for name in weights)
    assert read_stages(str(folder)) == [{**stage, "evaluation": read_stages(str(folder))[0]["evaluation"]}]
    shutil.rmtree(folder / "checkpoint-10")
    assert main([*words, "--resume"]) == 0
    again = load_file(folder / "model.safetensors")
    assert all(weights[name].equal(again[name]) for name in weights)


def test_a_run_does_not_write_over_the_model_that_it_starts_from(recipes, smt_run, capsys):
    words = [
        "smt",
        "--config",
        str(recipes["smt"]),
        "--model",
        str(smt_run),
        "--output_dir",
        str(smt_run),
        "--overwrite",
    ]
    assert main(words) == 2
    assert "contains the model that this run starts from: choose another folder" in capsys.readouterr().err
    assert (smt_run / "model.safetensors").is_file()
