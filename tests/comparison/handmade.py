"""Results as a comparison leaves them, made by hand."""

import json

CHAINS = {"smt": [("smt", "SMT")], "dmt": [("smt", "SMT"), ("dmt", "DMT")], "bptt": [("bptt", "BPTT")]}


def point(steps, accuracy, cost=1.0):
    """A measurement after so many steps, each of them at this cost in every budget."""
    budgets = ("tokens", "flops", "sequential_flops", "cpu_seconds", "wall_seconds")
    return {"steps": steps, "accuracy": accuracy, "row_accuracy": accuracy, "loss": 1 - accuracy} | dict.fromkeys(
        budgets, steps * cost
    )


def write_result(folder, name, accuracy, trace, seed=0, length=8, cell="transformer", factors=(1, 2), **changes):
    """Writes the result of a stage; its accuracy halves with every factor."""
    stages = [{"name": stage, "label": label} for stage, label in CHAINS[name]]
    scores = {
        str(length * factor): {"accuracy": accuracy / factor, "row_accuracy": 0.0, "loss": 0.5} for factor in factors
    }
    result = {
        "settings": {"task": "parity", "task_options": {}}
        | {"cell": cell, "length": length, "seed": seed, "stages": stages},
        "student": scores,
        "trace": trace,
        "effective_rank": 2.0,
        "uniformity": -1.0,
        "gradient_norms": [0.0, 1e-3, 1e-2, 0.1, 0.0],
        "memory_space": {"points": [[0.0, 1.0], [1.0, 0.0]], "labels": [1, 2], "explained": [0.7, 0.2]},
    }
    if name == "bptt":
        result["initial_gradient_norms"] = [1e-3, 1e-2, 0.1, 0.2, 0.0]
    else:
        result["drift"] = [0.01 * (step + 1) for step in range(length)]
    if name == "smt":
        teacher = {key: {**value, "accuracy": 1.0} for key, value in scores.items()}
        result |= {"teacher": teacher, "teacher_effective_rank": 3.0, "transition_gradient_norms": [0.1] * 4}
    place = folder / cell / f"length-{length}" / f"seed-{seed}" / name
    place.mkdir(parents=True)
    (place / "result.json").write_text(json.dumps(result | changes))


def write_results(folder):
    """Two seeds of SMT, DMT after it, and BPTT, whose steps cost four times as much."""
    for seed, more in ((0, 0.0), (1, 0.1)):
        write_result(folder, "smt", 0.5 + more, [point(10, 0.2), point(20, 0.5 + more)], seed=seed)
        write_result(folder, "dmt", 0.7 + more, [point(5, 0.6), point(10, 0.7 + more)], seed=seed)
        write_result(folder, "bptt", 0.8 + more, [point(4, 0.3, 4.0), point(8, 0.8 + more, 4.0)], seed=seed)
