"""Recipes: YAML without surprises."""

import pytest

from smt_hf.cli.recipe_file import read_recipe
from smt_hf.errors import InputError


@pytest.fixture
def read(tmp_path):
    def read(content):
        file = tmp_path / "recipe.yaml"
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
        return read_recipe(str(file))

    return read


@pytest.mark.parametrize(
    "text, value",
    [
        ("1e-3", 1e-3),
        ("1.0e-3", 1e-3),
        ("-.5", -0.5),
        ("12", 12),
        ("007", 7),
        ("1:30", "1:30"),  # 90 in YAML 1.1
        ("on", "on"),
        ("no", "no"),
        ("0x1F", "0x1F"),
        ("1_000", "1_000"),
        ("2026-01-01", "2026-01-01"),
        ("true", True),
        ("~", None),
        ("", None),
        ("[1, 2.5, a]", [1, 2.5, "a"]),
        ("{a: {b: [1]}}", {"a": {"b": [1]}}),
        ("'5'", "5"),
    ],
)
def test_values(read, text, value):
    found = read(f"x: {text}\n")["x"]
    assert found == value and type(found) is type(value)


def test_marks_and_line_ends(read):
    assert read(b"\xef\xbb\xbfa: 1\r\nb: x\r\n") == {"a": 1, "b": "x"}


def test_fields_of_another_mapping(read):
    """Those that are named anew win, wherever the merge stands; more than one mapping can be merged."""
    found = read("a: &a {x: 1, y: 2}\nb: &b {y: 3, <<: *a}\nc: {<<: [{y: 3}, *a], z: 4}\n'<<': text\n")
    assert found == {"a": {"x": 1, "y": 2}, "b": {"x": 1, "y": 3}, "c": {"x": 1, "y": 3, "z": 4}, "<<": "text"}


@pytest.mark.parametrize(
    "content, message",
    [
        ("a: 1\nb: 2\na: 3\n", "'a' appears twice .line 3"),
        ("a: {b: 1, b: 2}\n", "'b' appears twice"),
        ("a: &a {b: 1}\nc: {<<: *a, d: 1, d: 2}\n", "'d' appears twice"),
        ("a: {<<: 1}\n", "is not YAML"),
        ("5: 6\n", "5 .line 1. is not a field name"),
        ("true: 1\n", "True .line 1. is not a field name"),
        ("~: 1\n", "None .line 1. is not a field name"),
        ("[1]: 1\n", "is not a field name"),
        (b"seed: \xff\xfe\n", "is not UTF-8 text"),
        ("a: " + "[" * 3000 + "]" * 3000, "nested too deeply"),
        ("a: [1\n", "is not YAML"),
        ("- a\n", "contains no fields"),
        ("", "contains no fields"),
        ("a: !!python/object/apply:os.system [ls]\n", "is not YAML"),
    ],
)
def test_what_is_no_recipe(read, content, message):
    with pytest.raises(InputError, match=message) as refused:
        read(content)
    assert "recipe.yaml" in str(refused.value) and "\n" not in str(refused.value)


@pytest.mark.parametrize("path", ["nowhere.yaml", ".", "x" * 5000])
def test_no_file(path):
    with pytest.raises(InputError, match="there is no recipe|cannot be read"):
        read_recipe(path)
