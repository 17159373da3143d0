"""The results of the GPU proof as a page of the documentation; see prove_gpu.py."""


def page(results: dict) -> str:
    """The results so far in Markdown."""
    gpus = (results.get("environment") or {}).get("gpus", 1)
    parts = [f"# On one {'GPU' if gpus else 'CPU'}\n", environment(results.get("environment"))]
    parts += [left_out(results["sections"]), checks(results.get("checks"))]
    parts.append(steps("Training steps", results.get("steps"), results.get("flops")))
    parts.append(steps("Attention of the teacher", results.get("attention"), results.get("flops")))
    parts.append(steps("With the recurrence's step compiled", results.get("compiled"), results.get("flops")))
    parts.append(steps("Forward and backward pass as one CUDA graph", results.get("graphs")))
    parts += [generation(results.get("generation")), race(results.get("race")), waits(results.get("waits"))]
    return "\n".join(part for part in parts if part)


def number(value, digits: int = 3) -> str:
    """A readable number, with 3 significant digits and separated thousands."""
    if value is None:
        return "–"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.{digits}g}"


def table(head: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def environment(found: dict | None) -> str:
    if not found:
        return ""
    peak = f"data sheet {found['peak_flops'] / 1e12:.0f} TFLOP/s in bf16, " if found.get("peak_flops") else ""
    return (
        f"{found['device']}, PyTorch {found['torch']}, transformers {found['transformers']}: {peak}"
        f"{found['matrix_flops'] / 1e12:.3g} TFLOP/s in a product of large random matrices. Sizes: {found['sizes']}.\n"
    )


def left_out(sections: dict) -> str:
    """The sections that did not run, or failed, and why."""
    reasons = {name: each.get("skipped") or (each.get("error") and "failed") for name, each in sections.items()}
    named = ", ".join(f"{name} ({reason})" for name, reason in reasons.items() if reason)
    return f"Left out: {named}.\n" if named else ""


def checks(found: dict | None) -> str:
    if not found:
        return ""
    rows = [
        [name, "passed" if check["passed"] else "**failed**", worst(check.get("found"))]
        for name, check in found.items()
    ]
    return "## Checks\n\n" + table(["check", "", "largest difference"], rows)


def worst(found) -> str:
    """The largest relative differences among the numbers of a check."""
    largest = {}
    for case in (found or {}).values():
        for name, value in case.items() if isinstance(case, dict) else ():
            largest[name] = max(value, largest.get(name, 0.0))
    if not largest:
        return ", ".join(f"{name} {value}" for name, value in (found or {}).items() if not isinstance(value, dict))
    return ", ".join(f"{name} {value:.2g}" for name, value in largest.items())


def steps(title: str, found: dict | None, flops: dict | None = None) -> str:
    if not found or "skipped" in found:
        return ""
    head = ["method", "windows", "s per step", "tokens/s", "transitions/s", "peak GiB", "TFLOP/s"]
    rows = []
    for name, each in found.items():
        if "seconds" not in each:
            rows.append([name, each.get("skipped") or each.get("error", "")[:80].replace("\n", " "), *[""] * 5])
            continue
        work = (flops or {}).get(name)
        speed = work and work * each["batch_size"] / each["seconds_mean"] / 1e12
        values = [
            each[key] for key in ("batch_size", "seconds", "tokens_per_second", "transitions_per_second", "peak_gib")
        ]
        rows.append([name, *map(number, values), number(speed)])
    return f"## {title}\n\n" + table(head, rows)


def generation(found: dict | None) -> str:
    if not found:
        return ""
    names = ["generate", "step", "graph"]
    rows = [[batch, *(number(each.get(name)) for name in names)] for batch, each in found.items()]
    return "## Writing, tokens per second\n\n" + table(["rows", "`generate()`", "bare step", "as a CUDA graph"], rows)


def race(found: dict | None) -> str:
    """The final results of the arms, and the seconds that each took to reach the loss that all of them reached."""
    if not found:
        return ""
    reached = max((min(losses_of(each)) for each in found.values() if each.get("curve")), default=0.0)
    rows = []
    for arm, each in found.items():
        if not each.get("curve"):
            rows.append([arm, each.get("skipped") or "failed", "", "", ""])
            continue
        last = each["curve"][-1]
        trained = ", ".join(f"{stage['kind']} {stage['steps']}" for stage in each["stages"])
        first = next(point["seconds"] for point in each["curve"] if point["loss"] <= reached)
        rows.append([arm, number(last["seconds"]), f"{last['loss']:.3f}", number(first), trained])
    head = ["arm", "seconds of training", "held-out nats per token", f"seconds to {reached:.3f}", "steps"]
    return "## Race\n\n" + table(head, rows)


def losses_of(arm: dict) -> list[float]:
    """The held-out losses during the training of an arm."""
    return [point["loss"] for point in arm["curve"]]


def waits(found: dict | None) -> str:
    if not found:
        return ""
    rows = [
        [name, str(each["total"]), "; ".join(f"{n} × {line}" for line, n in each["lines"].items())]
        for name, each in found.items()
    ]
    return "## Host synchronisations of a step\n\n" + table(["method", "number", "where"], rows)
