"""Tables of reports."""


def format_table(report: dict) -> str:
    """The report as a table: one row per start, with the mean loss over quarters of the rollout."""
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
    return "\n".join([*rows, *_drift(report)])


def format_image_table(report: dict) -> str:
    """The report as a table: the loss over all pixels, and in four bands from top to bottom."""
    height = report["size"]["height"]
    bands = [(height * band // 4, height * (band + 1) // 4) for band in range(4)]
    heads = "".join(f"{f'rows {a + 1}-{b}':>12}" if b > a else " " * 12 for a, b in bands)
    lines = [f"{'':10}{'nats/pixel':>12}{'+-':>8}{'bits/pixel':>12}{'nats/image':>12}{heads}"]
    for name in ("teacher", "student"):
        if name not in report:
            continue
        row = report[name]
        error = "-" if row["standard_error"] is None else f"{row['standard_error']:.4f}"
        means = "".join(f"{sum(row['by_row'][a:b]) / (b - a):12.3f}" if b > a else " " * 12 for a, b in bands)
        lines.append(
            f"{name:10}{row['nats_per_pixel']:12.4f}{error:>8}{row['bits_per_pixel']:12.4f}{row['nats_per_image']:12.1f}{means}"
        )
    lines += _drift(report)
    if "quality" in report:
        lines += ["", format_quality(report["quality"])]
    if "classes" in report:
        known = report["classes"]
        lines += [
            "",
            f"the class: {known['class_accuracy']:.1%} of {known['num_images']} images are likeliest as their own class; "
            f"{known['class_information']:.3f} of {known['class_entropy']:.3f} nats per image",
        ]
    return "\n".join(lines)


def format_quality(quality: dict) -> str:
    """Sample quality as a table, real images beside the student's."""
    lines = [f"{'':10}{'label':>12}{'precision':>12}{'recall':>12}{'Frechet':>12}"]
    for name in ("real", "samples"):
        row = quality[name]
        numbers = "".join(
            f"{row[key]:12.3f}" for key in ("label_agreement", "precision", "recall", "frechet_distance")
        )
        lines.append(f"{name:10}{numbers}")
    lines.append(
        f"{quality['num_images']} images each, judged by a classifier that is right on {quality['classifier_accuracy']:.1%} of "
        "real validation images" + (f"; guidance {quality['guidance']:g}" if "guidance" in quality else "")
    )
    return "\n".join(lines)


def _drift(report: dict) -> list[str]:
    """A line with points of the drift curve, if there is one."""
    if "drift" not in report:
        return []
    curve = report["drift"]
    points = [step for step in (*(4**power for power in range(6)), len(curve)) if step <= len(curve)]
    return ["drift after " + ", ".join(f"{step} steps {curve[step - 1]:.4f}" for step in dict.fromkeys(points))]
