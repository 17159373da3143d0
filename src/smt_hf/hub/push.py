"""Uploading a folder to the Hub, with a clear message when that is refused."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from huggingface_hub import CommitOperationAdd, HfApi, RepoUrl, get_token
from huggingface_hub.errors import HTTPError, OfflineModeIsEnabled
from huggingface_hub.utils import HFValidationError, filter_repo_objects, validate_repo_id

from ..errors import InputError

# What training leaves beside a model, and hidden files, which may hold secrets: no model needs them.
LEFTOVERS = (
    "checkpoint-*/*",
    "runs/*",
    "logs/*",
    "wandb/*",
    "cache/*",
    "optimizer*.pt",
    "optimizer*.bin",
    "scheduler.pt",
    "scaler.pt",
    "rng_state*",
    "global_step*/*",
    "training_args.bin",
    "trainer_state.json",
    "*.pth",
    "*.log",
    "*.tfevents.*",
    "*__pycache__/*",
    ".*",
    "*/.*",
)


def share_folder(
    folder: str | Path,
    repo_id: str,
    private: bool = False,
    token: str | None = None,
    revision: str = "main",
    commit_message: str | None = None,
    card: str | None = None,
) -> RepoUrl:
    """Uploads a model folder, without what training left in it, to a model repository, created if it does not exist.

    Nothing in the folder changes.

    Args:
        folder: holds the weights, the configuration and whatever else belongs to the model.
        repo_id: `user/name`, or `name` for the user of the token.
        private: make a new repository private.
        token: token with write access; by default, the one of `hf auth login` or `$HF_TOKEN`.
        revision: the branch, created if it does not exist, or the `refs/pr/N` of a pull request.
        commit_message: the title of the commit.
        card: the text of `README.md`, in place of the folder's own.

    Returns:
        The address of the repository, with `repo_id` as an attribute.

    Raises:
        InputError: for an invalid name, a token that is missing or refused, a repository that the token may not
            write to or that is public despite `private`, or a Hub that cannot be reached.
    """
    api, url = make_repository(repo_id, private, token)
    with refusals_in_words(repo_id, api.endpoint):
        if revision != "main" and not revision.startswith("refs/"):
            api.create_branch(url.repo_id, branch=revision, exist_ok=True)
        api.create_commit(
            url.repo_id,
            additions(Path(folder), card),
            commit_message=commit_message or "Upload model",
            revision=revision,
        )
    return url


def additions(folder: Path, card: str | None) -> list[CommitOperationAdd]:
    """The files to upload: all but [`LEFTOVERS`], with `card` in place of the folder's own."""
    files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    contents = {name: folder / name for name in filter_repo_objects(files, ignore_patterns=list(LEFTOVERS))}
    if card is not None:
        contents["README.md"] = card.encode()
    return [CommitOperationAdd(name, content) for name, content in contents.items()]


def make_repository(repo_id: str, private: bool = False, token: str | None = None) -> tuple[HfApi, RepoUrl]:
    """Creates a model repository unless it exists; raises as [`share_folder`] does."""
    check_repo_id(repo_id)
    token = (token or get_token() or "").strip()
    if not token:
        raise InputError("no token for the Hub was found: run `hf auth login`, set HF_TOKEN or pass --token")
    api = HfApi(token=token, library_name="smt-hf")
    with refusals_in_words(repo_id, api.endpoint):
        url = api.create_repo(repo_id, private=private or None, exist_ok=True)
        if private and not api.model_info(url.repo_id).private:
            raise InputError(
                f"{url.repo_id!r} exists and is public: leave out --private, make it private at {url}/settings, or pass "
                "another --repo_id"
            )
    return api, url


def check_repo_id(repo_id: str) -> None:
    """Checks the name of a repository.

    Raises:
        InputError: if it is not valid.
    """
    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise InputError(
            f"repo_id={repo_id!r} is not a repository name: pass user/name, made of letters, digits, '-', '_' and '.'"
        ) from error


@contextmanager
def refusals_in_words(repo_id: str, endpoint: str) -> Iterator[None]:
    """Turns errors of `huggingface_hub` into an [`InputError`] that says what to do."""
    try:
        yield
    except InputError:
        raise
    except (HTTPError, OSError, RuntimeError, ValueError) as error:
        raise InputError(explain(error, repo_id, endpoint)) from error


def explain(error: Exception, repo_id: str, endpoint: str) -> str:
    """One line on an error of `huggingface_hub`: who refused what, and what to do."""
    if isinstance(error, RuntimeError) and error.__cause__ is not None:  # a thread of the upload failed
        error = error.__cause__
    response = getattr(error, "response", None)
    said = " ".join((getattr(error, "server_message", None) or str(error)).split())
    if isinstance(error, OfflineModeIsEnabled):
        return "HF_HUB_OFFLINE is set, which disables the Hub: unset it to push"
    if response is None and isinstance(error, HTTPError):
        return f"{endpoint} cannot be reached ({said}): check the network, and HF_ENDPOINT if it is set"
    if response is not None and response.status_code == 401:
        return (
            f"{endpoint} refused the token ({said}): create one with write access at {endpoint}/settings/tokens, then run "
            "`hf auth login` or pass it with --token"
        )
    if response is not None and response.status_code == 403:
        return (
            f"the token may not write to {repo_id!r} ({said}): pass a --repo_id of your own, or a token with write access "
            "to this one"
        )
    if "xet" in said.lower():
        return f"{repo_id!r} could not be uploaded by Xet ({said}): try again, or set HF_HUB_DISABLE_XET=1 to upload without it"
    return f"{repo_id!r} could not be uploaded ({said}): fix that, or try again; what was uploaded is not sent again"
