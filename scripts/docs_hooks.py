"""Hooks of mkdocs.yml, which process the pages of docs/.

In a page, `<!-- arguments: smt_hf.SmtTrainingArguments -->` becomes a table of the fields that the class adds to
`transformers.TrainingArguments`, and `<!-- commands -->` the help of every command. Formulas become MathML, which browsers show without
scripts. [`Name`] in a docstring becomes a link to the page that documents the name.
"""

import dataclasses
import html
import importlib
import io
import re
from contextlib import redirect_stdout

from latex2mathml.converter import convert
from transformers import TrainingArguments

from smt_hf_command import COMMANDS, main

ARGUMENTS = re.compile(r"<!-- arguments: ([\w.]+)\.(\w+) -->")
FORMULA = re.compile(r'<(span|div) class="arithmatex">\\([(\[])(.*?)\\[)\]]</\1>', re.DOTALL)
REFERENCE = re.compile(r"\[<code>([\w.]+)</code>\]")
PLACES = {}  # mkdocstrings' identifier of each name


def on_files(files, **kwargs):
    """Records which names the pages document. Run once by mkdocs."""
    for page in files.documentation_pages():
        PLACES.update(
            (path.rpartition(".")[2], path) for path in re.findall(r"^::: ([\w.]+)", page.content_string, re.M)
        )
    return files


def on_page_markdown(markdown: str, **kwargs) -> str:
    """Fills in the generated parts. Run by mkdocs on every page."""
    markdown = ARGUMENTS.sub(lambda found: arguments_table(*found.groups()), markdown)
    return markdown.replace("<!-- commands -->", commands()) if "<!-- commands -->" in markdown else markdown


def on_page_content(content: str, **kwargs) -> str:
    """Turns formulas into MathML and names into links. Run by mkdocs on every page."""
    return REFERENCE.sub(link, FORMULA.sub(formula, content))


def link(found: re.Match) -> str:
    name, code = found.group(1), f"<code>{found.group(1)}</code>"
    first, _, rest = name.partition(".")
    path = PLACES.get(name.rpartition(".")[2]) or (PLACES.get(first, first) + ("." + rest if rest else ""))
    return f'<autoref identifier="{path}" optional>{code}</autoref>'


def formula(found: re.Match) -> str:
    _, bracket, latex = found.groups()
    math = convert(html.unescape(latex), display="inline" if bracket == "(" else "block")
    return math.replace("<mo>&#x0005E;</mo>", '<mo stretchy="false">&#x0005E;</mo>')  # a hat as wide as a letter


def arguments_table(module: str, name: str) -> str:
    """The fields of an arguments class as Markdown: its own fields, then those that it shares with other trainers."""
    kind = getattr(importlib.import_module(module), name)
    inherited = {field.name: field.default for field in dataclasses.fields(TrainingArguments)}
    rows = ["| field | default | meaning |", "| --- | --- | --- |"]
    for field in dataclasses.fields(kind):
        changed = field.default != inherited.get(field.name, dataclasses.MISSING)
        if field.name in inherited and not (changed and field.metadata.get("help")):
            continue
        default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
        text = field.metadata.get("help", "").replace("|", "\\|")
        rows.append(f"| `{field.name}` | `{default}` | {text} |")
    return "\n".join(rows)


def commands() -> str:
    """The help of every command, as its parser prints it."""
    parts = []
    for name in COMMANDS:
        output = io.StringIO()
        with redirect_stdout(output):
            main([name, "--help"])
        parts.append(f"## smt-hf {name}\n\n```text\n{output.getvalue().strip()}\n```")
    return "\n\n".join(parts)
