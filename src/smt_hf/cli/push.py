"""`smt-hf push`: share a trained folder on the Hub."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from huggingface_hub import RepoUrl

from ..checkpoints import KINDS, load
from ..errors import InputError
from ..hub import CARD, card_text, check_repo_id, share_folder
from .parsing import Command, parse

LOADERS = {"smt": "AutoModelForPreTraining", "smt_teacher": "AutoModel", "smt_rnn": "AutoModelForCausalLM"}


@dataclass
class PushOptions:
    """What to share, and where."""

    model: str | None = field(default=None, metadata={"help": "Folder of a student, a teacher or an SMT run."})
    repo_id: str | None = field(
        default=None, metadata={"help": "Repository on the Hub, user/name; created if it does not exist."}
    )
    private: bool = field(default=False, metadata={"help": "Make a new repository private."})
    token: str | None = field(
        default=None, metadata={"help": "Token with write access; by default, that of `hf auth login` or $HF_TOKEN."}
    )
    license: str | None = field(
        default=None,
        metadata={"help": "License for the card's metadata, such as apache-2.0; your own card is kept."},
    )
    revision: str = field(default="main", metadata={"help": "Branch to upload to; created if it does not exist."})
    commit_message: str | None = field(default=None, metadata={"help": "Title of the commit."})


COMMAND = Command(
    name="push",
    kinds=[PushOptions],
    description="""Share a trained folder on the Hub: a student, a teacher, or both as SMT trained them. Everything in the
folder is uploaded except what only training needs (checkpoints, optimizer states, logs) and hidden files.""",
    example="""example:
  hf auth login
  smt-hf push runs/dmt user/name""",
    positionals=["model", "repo_id"],
    required={"model": "the folder of a trained model", "repo_id": "the name of a Hub repository, user/name"},
)


def main(argv: Sequence[str]) -> RepoUrl:
    """Runs the command and returns the address of the repository."""
    (options,) = parse(COMMAND, argv)
    folder = Path(options.model).expanduser()
    kind = check_model_folder(folder)
    check_repo_id(options.repo_id)
    card = card_text(folder, options.repo_id, options.license)
    url = share_folder(
        folder, options.repo_id, options.private, options.token, options.revision, options.commit_message, card
    )
    if card is not None:  # only after the upload: a refused push changes nothing
        (folder / CARD).write_text(card, encoding="utf-8")
    print(f"{KINDS[kind]} is at {url}\n")
    branch = "" if options.revision == "main" else f', revision="{options.revision}"'
    print(f'  {LOADERS[kind]}.from_pretrained("{url.repo_id}"{branch}, trust_remote_code=True)')
    return url


def check_model_folder(folder: Path) -> str:
    """The kind of the model in a folder, one of `KINDS`.

    Raises:
        InputError: if the folder is missing, or its model cannot be loaded.
    """
    if not folder.is_dir():
        raise InputError(f"there is no folder {str(folder)!r}: check the path")
    return load(str(folder), *KINDS).config.model_type
