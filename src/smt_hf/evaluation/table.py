"""A report as a table."""


def format_table(report: dict) -> str:
    """The report as a table: a row a start, with the mean loss over quarters of the rollout."""
    steps = report["rollout_steps"]
    quarters = [(steps * quarter // 4, steps * (quarter + 1) // 4) for quarter in range(4)]
    heads = "".join(f"{f'{a}-{b}':>10}" for a, b in quarters)
    rows = [f"{'':22}{'nats/token':>12}{'+-':>8}{'bits/byte':>11}{heads}"]
    labels = {
        "teacher": f"teacher (first {report['context_length']})",
        "student_warm": "student, warm start",
        "student_cold": "student, cold start",
    }
    for name, label in labels.items():
        if name in report:
            row = report[name]
            by_position = row["by_position"]
            means = "".join(f"{sum(by_position[a:b]) / (b - a):10.3f}" if b > a else " " * 10 for a, b in quarters)
            error = f"{row['standard_error']:8.4f}" if row["standard_error"] is not None else f"{'-':>8}"
            rows.append(f"{label:22}{row['nats_per_token']:12.4f}{error}{row['bits_per_byte']:11.4f}{means}")
    if "drift" in report:
        curve = report["drift"]
        points = [step for step in (1, 4, 16, 64, 256, 1024) if step <= len(curve)]
        rows.append("drift after " + ", ".join(f"{step} steps {curve[step - 1]:.4f}" for step in points))
    return "\n".join(rows)
