"""Exports a student as a web page: the export, a page that runs it, and the runtime for browsers."""

import json
import os
import shutil
from pathlib import Path

from ..data.tokenizer import is_byte_tokenizer
from ..errors import InputError
from .export import Verification, check_export, new_folder, write_export
from .npm import NpmPackage, package_file, package_files

PAGE = Path(__file__).parent / "page"
VENDOR = "vendor"
RUNTIME = NpmPackage(
    "onnxruntime-web",
    "1.30.0",
    "q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ==",
    ("dist/ort.wasm.bundle.min.mjs", "dist/ort-wasm-simd-threaded.wasm"),
)
TOKENIZERS = NpmPackage(
    "@huggingface/tokenizers",
    "0.2.0",
    "LidMHe1FpcSYH4vcSjXooda34pC0M8m1gmDOv7SQi6Iv+ib1zX7J3sHBCC9/3FPCkn2k1b55FneVqMRxrr99pg==",
    ("dist/tokenizers.min.mjs",),
)
# The page encodes these and compares, so that no student reads tokens in a browser other than those it was trained on.
SAMPLES = (
    "Once upon a time, there was a small girl.\n\n\u201cWho\u2019s there?\u201d she asked.",
    "  3.14 caf\u00e9s \U0001f600\n",
    "",
)
NOTICE = """{packages}

Copyright (c) Microsoft Corporation (onnxruntime-web, MIT License); Copyright Hugging Face (tokenizers, Apache License 2.0).

MIT License

Permission is hereby granted, free of charge, to any person obtaining a copy of this software and associated documentation files (the
"Software"), to deal in the Software without restriction, including without limitation the rights to use, copy, modify, merge, publish,
distribute, sublicense, and/or sell copies of the Software, and to permit persons to whom the Software is furnished to do so, subject to
the following conditions:

The above copyright notice and this permission notice shall be included in all copies or substantial portions of the Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT LIMITED TO THE WARRANTIES OF
MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR
ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM, OUT OF OR IN CONNECTION WITH
THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.
"""
SPACE = """---
title: {title}
emoji: \U0001f9e0
colorFrom: green
colorTo: gray
sdk: static
pinned: false
---

A recurrent student that runs in the browser, with its memory as a picture. Any static file server can serve it:
`python -m http.server`.
"""


def export_web(
    student,
    tokenizer,
    output_dir: str | os.PathLike,
    text: str,
    dtype: str = "float32",
    max_difference: float | None = None,
    overwrite: bool = False,
) -> Verification:
    """Exports a student as a static page: any file server can show it, and it fetches nothing from anywhere else.

    The folder holds what [`export_onnx`] writes, so an [`OnnxBackend`] can run it too. The runtime for browsers is downloaded
    from npm the first time, its digest is checked, and it is kept in the cache folder.

    Args:
        student: an [`SmtRnnForCausalLM`]; it is not changed.
        tokenizer: its tokenizer, either the byte tokenizer or one with a `tokenizer.json`.
        output_dir: the folder to write.
        text: the text to compare on, see [`export_onnx`].
        dtype: how the matrices are stored, `"float32"`, `"float16"` or `"int8"`.
        max_difference: as for [`export_onnx`].
        overwrite: replace an earlier export in `output_dir`.

    Raises:
        InputError: for the reasons given in [`export_onnx`]; if a page cannot read the tokenizer; or if the runtime is missing
            and npm cannot download it.
    """
    input_ids = check_export(student, tokenizer, text, dtype)
    packages = [RUNTIME]
    if not is_byte_tokenizer(tokenizer):
        if not tokenizer.is_fast:
            raise InputError(
                f"a page cannot use a {type(tokenizer).__name__}: export with --format onnx, or save a fast tokenizer"
            )
        packages.append(TOKENIZERS)
    with new_folder(output_dir, overwrite) as folder:
        for package in packages:  # before the student is traced, which takes longer
            package_file(package)
        found = write_export(student, tokenizer, folder, input_ids, dtype, max_difference)
        write_page(tokenizer, folder, packages)
    return found


def write_page(tokenizer, folder: Path, packages: list[NpmPackage]) -> None:
    """Adds the page, the facts that its tokenizer needs, and the packages that it imports to an export."""
    shutil.copytree(PAGE, folder, dirs_exist_ok=True)
    vendor = folder / VENDOR
    vendor.mkdir()
    for package in packages:
        for name, content in package_files(package).items():
            (vendor / Path(name).name).write_bytes(content)
    names = "\n".join(f"{package.name} {package.version}" for package in packages)
    (vendor / "NOTICE.txt").write_text(NOTICE.format(packages=names), encoding="utf-8")
    known = {
        "kind": "byte" if TOKENIZERS not in packages else "tokenizer.json",
        "special_ids": sorted(set(tokenizer.all_special_ids)),
        "samples": [{"text": text, "ids": tokenizer(text, add_special_tokens=False)["input_ids"]} for text in SAMPLES],
    }
    (folder / "tokenizer_in_browser.json").write_text(json.dumps(known, indent=2) + "\n", encoding="utf-8")
    (folder / "README.md").write_text(SPACE.format(title="A student and its memory"), encoding="utf-8")
