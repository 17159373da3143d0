"""What a training logs arrives where `report_to` says: TensorBoard stands for the others, which take the same calls."""

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from transformers.integrations import rewrite_logs

from smt_hf.data import TokenWindows

TERMS = {
    "smt": {"decoding", "dynamics", "readout", "stream", "uniformity", "drift"},
    "dmt": {"dynamics", "readout", "drift"},
    "bptt": set(),
}
ALWAYS = {"loss", "grad_norm", "learning_rate", "effective_rank", "memory_variance"}


@pytest.mark.parametrize("kind", TERMS)
def test_every_logged_metric_arrives(kind, make_smt, make_dmt, make_bptt, cache, tmp_path, monkeypatch):
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "events"))
    make = {"smt": make_smt, "dmt": make_dmt, "bptt": make_bptt}[kind]
    trainer = make(report_to="tensorboard", max_steps=2, **({"uniformity_weight": 0.001} if kind == "smt" else {}))
    windows = TokenWindows(cache, trainer.args.window_length, random_offset=False)
    trainer.eval_dataset = torch.utils.data.Subset(windows, range(8))
    trainer.train()
    trainer.evaluate()

    history = trainer.state.log_history
    events = EventAccumulator(str(tmp_path / "events")).Reload()
    arrived = {(tag, e.step): e.value for tag in events.Tags()["scalars"] for e in events.Scalars(tag)}
    logged = {
        (tag, entry["step"]): value
        for entry in history
        for tag, value in rewrite_logs({name: value for name, value in entry.items() if name != "step"}).items()
    }
    assert TERMS[kind] | ALWAYS <= set(history[0])
    assert any(name.startswith("eval_") for name in history[-1])
    assert arrived.keys() == logged.keys()
    assert arrived == pytest.approx(logged, rel=1e-6, nan_ok=True)  # events are float32
