"""The demo from its beginning to its end, with a second for each stage."""

import json

from smt_hf.cli.main import main


def test_the_demo_trains_measures_and_writes(tmp_path, capsys):
    folder = tmp_path / "demo"
    argv = ["--smt_seconds", "1", "--dmt_seconds", "1", "--num_stories", "50"]
    assert main(["demo", "--output_dir", str(folder), *argv]) == 0
    out, err = capsys.readouterr()
    assert "too few for English words" in err
    for stage in ("smt", "dmt"):
        report = json.loads((folder / stage / "evaluation" / "evaluation.json").read_text())
        assert f"{report['student_cold']['nats_per_token']:.4f}" in out
    assert all(f"\n{start}" in out for start in ("Once upon a time, there was a", "One sunny day, Lily", "Tom found"))
    assert f'smt-hf generate {folder / "dmt"} "Once upon a time"' in out
