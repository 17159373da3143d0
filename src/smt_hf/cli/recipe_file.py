"""Recipes: YAML files of field names and values, without the surprises of YAML 1.1."""

import re
from pathlib import Path

import yaml

from ..errors import InputError, explain, one_line

MERGE = "tag:yaml.org,2002:merge"


class RecipeLoader(yaml.SafeLoader):
    """Loads YAML with the scalars of YAML 1.2 (`1:30` and `on` are text), and refuses a name that appears twice.

    It keeps the merges of YAML 1.1: `<<: *anchor` adds the fields of another mapping, except those that are given again.
    """

    yaml_implicit_resolvers = {}

    def construct_mapping(self, node, deep=False):
        seen = set()
        for key, _ in node.value:
            if key.tag == MERGE:
                continue
            name = self.construct_object(key, deep=True)
            if not isinstance(name, str):
                raise InputError(
                    f"{name!r} (line {key.start_mark.line + 1}) is not a field name: write text before the colon"
                )
            if name in seen:
                raise InputError(f"{name!r} appears twice (line {key.start_mark.line + 1}): remove one of them")
            seen.add(name)
        return super().construct_mapping(node, deep)


for _tag, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("int", r"[-+]?[0-9]+", "-+0123456789"),
    (
        "float",
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        "-+0123456789.",
    ),
):
    RecipeLoader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(rf"(?:{_pattern})\Z"), list(_first))
RecipeLoader.add_implicit_resolver(MERGE, re.compile(r"<<\Z"), ["<"])
RecipeLoader.add_constructor("tag:yaml.org,2002:int", lambda loader, node: int(loader.construct_scalar(node)))


def read_recipe(path: str) -> dict:
    """Reads the mapping in a recipe file.

    Raises:
        InputError: if the file is missing, cannot be read, or holds something else.
    """
    file = Path(path).expanduser()
    try:
        if not file.is_file():
            raise InputError(f"there is no recipe {path!r}: check the path given with --config")
        values = yaml.load(file.read_text(encoding="utf-8-sig"), RecipeLoader)
    except InputError as error:
        raise error if str(path) in str(error) else InputError(f"{path}: {error}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path!r} is not UTF-8 text: convert it, or check the path given with --config") from error
    except RecursionError as error:
        raise InputError(
            f"{path!r} is nested too deeply to be a recipe: write lines such as 'learning_rate: 1.0e-3'"
        ) from error
    except yaml.YAMLError as error:
        raise InputError(f"{path!r} is not YAML ({one_line(error)}): fix it there") from error
    except OSError as error:
        raise InputError(f"the recipe cannot be read: {explain(error)}") from error
    if not isinstance(values, dict):
        raise InputError(f"{path!r} contains no fields: write lines such as 'learning_rate: 1.0e-3'")
    return values
