"""Lists the functions of the package that are longer than a screen.

    python scripts/long_functions.py [LINES]

Docstrings do not count. Exits with 1 if there is such a function.
"""

import ast
import sys
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1] / "src"


def long_functions(file: Path, limit: int) -> list[tuple[int, int, str]]:
    """The number of lines, the place and the name of each function in a file that has more than `limit` lines."""
    found = []
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        body = node.body[1:] if ast.get_docstring(node) is not None else node.body
        lines = node.end_lineno - body[0].lineno + 1 if body else 0
        if lines > limit:
            found.append((lines, node.lineno, node.name))
    return found


def main() -> int:
    """Prints the list, longest first."""
    limit = int(sys.argv[1]) if len(sys.argv) > 1 else 60
    rows = [(row, file) for file in sorted(PACKAGE.rglob("*.py")) for row in long_functions(file, limit)]
    for (lines, place, name), file in sorted(rows, key=lambda row: -row[0][0]):
        print(f"{lines:4} {file.relative_to(PACKAGE)}:{place} {name}")
    return int(bool(rows))


if __name__ == "__main__":
    sys.exit(main())
