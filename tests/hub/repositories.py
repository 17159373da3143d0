"""Repositories as the Hub keeps them: rows of commits over files that are known by their content."""

import hashlib
import json
from dataclasses import dataclass, field


@dataclass(frozen=True)
class File:
    """One version of a file; `is_large` ones are kept beside the repository, as Git LFS does."""

    content: bytes
    is_large: bool = False

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()

    @property
    def git_id(self) -> str:
        return hashlib.sha1(b"blob %d\0" % len(self.content) + self.content).hexdigest()

    @property
    def id(self) -> str:
        """The id that the Hub compares and sends as the ETag."""
        return self.sha256 if self.is_large else self.git_id


@dataclass(frozen=True)
class Commit:
    """A title and all files by their paths, on top of a parent."""

    title: str
    files: dict[str, File]
    parent: "Commit | None" = None

    @property
    def id(self) -> str:
        what = [self.title, {path: file.id for path, file in self.files.items()}, self.parent and self.parent.id]
        return hashlib.sha1(json.dumps(what).encode()).hexdigest()

    def history(self) -> list["Commit"]:
        """This commit and those under it, newest first."""
        return [self] + (self.parent.history() if self.parent else [])


@dataclass
class Repository:
    """Branches of commits; a new repository has `main` with one commit, as on the Hub."""

    id: str
    private: bool = False
    branches: dict[str, Commit] = field(
        default_factory=lambda: {"main": Commit("initial commit", {".gitattributes": File(b"*.safetensors lfs\n")})}
    )

    def find(self, revision: str) -> Commit | None:
        """The commit that a branch or a commit id names, `None` if there is none."""
        if revision in self.branches:
            return self.branches[revision]
        every = {commit.id: commit for head in self.branches.values() for commit in head.history()}
        return every.get(revision)

    def commit(self, branch: str, title: str, files: dict[str, File]) -> Commit:
        """Adds a commit that changes `files` on top of a branch."""
        head = self.branches[branch]
        self.branches[branch] = Commit(title, {**head.files, **files}, head)
        return self.branches[branch]
