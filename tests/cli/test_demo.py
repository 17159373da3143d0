"""The demo from its beginning to its end, with its recipes at a small size and a second for each stage."""

import json

import yaml
from PIL import Image

from smt_hf.cli import demo, demo_pixels, evaluate
from smt_hf.cli.generate import GenerateOptions
from smt_hf.cli.main import main

SMALL = {"hidden_size": 32, "num_memory_tokens": 2, "num_encoder_layers": 1, "num_updater_layers": 1}
SMALL |= {"num_readout_layers": 0, "num_eval_windows": 2}


def test_the_demo_trains_measures_and_writes(tmp_path, monkeypatch, capsys):
    (tmp_path / "demo").mkdir()
    for recipe in (demo.packaged_folder("configs") / "demo").iterdir():
        fields = yaml.safe_load(recipe.read_text(encoding="utf-8"))
        small = {name: value for name, value in SMALL.items() if name in fields}
        (tmp_path / "demo" / recipe.name).write_text(yaml.safe_dump(fields | small), encoding="utf-8")
    monkeypatch.setattr(demo, "packaged_folder", lambda name: tmp_path)
    measure, short = evaluate.main, ["--num_windows", "2", "--context_length", "8", "--rollout_steps", "8"]
    monkeypatch.setattr(evaluate, "main", lambda argv: measure([*argv, *short]))
    monkeypatch.setattr(demo, "GenerateOptions", lambda **options: GenerateOptions(**options | {"max_new_tokens": 4}))
    folder = tmp_path / "run"
    argv = ["--smt_seconds", "1", "--dmt_seconds", "1", "--num_stories", "50"]
    assert main(["demo", "--output_dir", str(folder), *argv]) == 0
    out, err = capsys.readouterr()
    assert "too few for English words" in err
    for stage in ("smt", "dmt"):
        report = json.loads((folder / stage / "evaluation" / "evaluation.json").read_text())
        assert f"{report['student_cold']['nats_per_token']:.4f}" in out
    assert all(f"\n{start}" in out for start in ("Once upon a time, there was a", "One sunny day, Lily", "Tom found"))
    assert f'smt-hf generate {folder / "dmt"} "Once upon a time"' in out


def test_the_demo_of_pixels_ends_with_a_grid_of_digits(tmp_path, monkeypatch, capsys):
    small = {"hidden_size": 8, "num_memory_tokens": 2, "num_attention_heads": 2, "num_encoder_layers": 1}
    for recipe in (demo.packaged_folder("configs") / "digits").iterdir():
        fields = yaml.safe_load(recipe.read_text(encoding="utf-8"))
        fields |= {"num_eval_windows": 4} | {name: small[name] for name in small if name in fields}
        (tmp_path / "digits").mkdir(exist_ok=True)
        (tmp_path / "digits" / recipe.name).write_text(yaml.safe_dump(fields), encoding="utf-8")
    monkeypatch.setattr(demo_pixels, "packaged_folder", lambda name: tmp_path)
    monkeypatch.setattr(demo_pixels, "NUM_IMAGES", 20)
    folder = tmp_path / "run"
    demo_pixels.draw_digits(folder, {"smt": 1, "dmt": 1, "bptt": 1})
    shown = capsys.readouterr().out
    assert f"are in {folder / 'digits.png'}" in shown and "bits/pixel" in shown and "Frechet" in shown
    with Image.open(folder / "digits.png") as grid:
        assert grid.size[0] == 10 * (8 * 7 + 2) + 2
    assert main(["demo", "--pixels", "--num_stories", "9"]) == 2
    assert "num_stories=9 cannot be used with pixels" in capsys.readouterr().err
