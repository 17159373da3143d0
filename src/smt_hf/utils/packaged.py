"""Files that come with the package but are at the top of a checkout: recipes and card templates."""

from pathlib import Path


def packaged_folder(name: str) -> Path:
    """The folder `configs` or `model_cards`: inside an installed package, or at the top of a checkout."""
    package = Path(__file__).resolve().parents[1]
    return package / name if (package / name).is_dir() else package.parents[1] / name
