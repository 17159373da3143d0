"""Files of npm packages, which are downloaded once, checked and kept."""

import base64
import hashlib
import io
import os
import shutil
import subprocess
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path

from ..data.cache_key import default_cache_dir
from ..errors import InputError, one_line

SECONDS = 300  # time limit of a download


@dataclass(frozen=True)
class NpmPackage:
    """One version of a package, identified by its content.

    Attributes:
        name: The name on npm.
        version: The version that the page was written for.
        sha512: The digest of its archive in base 64, as shown by `npm view NAME@VERSION dist.integrity`.
        files: The files to take from it.
    """

    name: str
    version: str
    sha512: str
    files: tuple[str, ...]

    @property
    def archive(self) -> str:
        """The name of the archive that `npm pack` writes."""
        return f"{self.name.removeprefix('@').replace('/', '-')}-{self.version}.tgz"


def package_file(package: NpmPackage) -> Path:
    """The archive of a package in the cache folder. npm downloads it if it is missing or damaged.

    Raises:
        InputError: if npm is missing, fails, or downloads something else.
    """
    place = default_cache_dir() / "npm" / package.archive
    if place.is_file() and _digest(place) == package.sha512:
        return place
    wanted = f"{package.name}@{package.version}"
    by_hand = f"or put its archive there yourself: {str(place)!r}"
    npm = shutil.which("npm")
    if npm is None:
        raise InputError(f"the page needs {wanted}, but npm is not installed: install Node.js, {by_hand}")
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=place.parent) as folder:
        command = [npm, "pack", wanted, "--pack-destination", folder, "--loglevel", "error"]
        try:
            run = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=SECONDS)
        except subprocess.TimeoutExpired as error:
            raise InputError(f"npm did not download {wanted} within {SECONDS} s: try again, {by_hand}") from error
        brought = Path(folder) / package.archive
        if run.returncode or not brought.is_file():
            said = one_line(RuntimeError(run.stderr))[:200]
            raise InputError(f"npm could not download {wanted} ({said}): check the network, {by_hand}")
        if _digest(brought) != package.sha512:
            raise InputError(
                f"npm downloaded a different {wanted} than the page was written for: check its registry, {by_hand}"
            )
        os.replace(brought, place)
    return place


def package_files(package: NpmPackage) -> dict[str, bytes]:
    """The files of a package by name. Raises the errors of [`package_file`]."""
    with tarfile.open(fileobj=io.BytesIO(package_file(package).read_bytes())) as archive:
        return {name: archive.extractfile(f"package/{name}").read() for name in package.files}


def _digest(file: Path) -> str:
    return base64.b64encode(hashlib.sha512(file.read_bytes()).digest()).decode()
