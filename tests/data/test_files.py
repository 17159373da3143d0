"""One file: whatever the format, the compression and the line breaks, the texts are the same."""

import bz2
import gzip
import io
import json
import lzma

import datasets
import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smt_hf.data import iter_documents
from smt_hf.data.files import file_format, file_texts
from smt_hf.errors import InputError


def zstd(data):
    sink = pyarrow.BufferOutputStream()
    with pyarrow.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(data)
    return sink.getvalue().to_pybytes()


COMPRESSIONS = {"": bytes, ".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress, ".zst": zstd}


def parquet(rows, **options):
    sink = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), sink, **options)
    return sink.getvalue()


def rows_of(texts):
    """Rows of which some have fields that others lack, before or after the text."""
    return [
        {"text": text} | ({"n": i} if i % 3 == 1 else {"meta": {"text": 5}} if i % 3 == 2 else {})
        for i, text in enumerate(texts)
    ]


def lines(texts, end):
    return "".join(json.dumps(row) + end for row in rows_of(texts)).encode()


FORMS = {  # of the same texts
    "lines": (".jsonl", lambda texts: lines(texts, "\n")),
    "lines with CRLF": (".jsonl", lambda texts: lines(texts, "\r\n")),
    "lines with blank ones": (".json", lambda texts: b"\n\n" + lines(texts, "\n \n")),
    "lines, raw UTF-8 and a byte order mark": (".jsonl", lambda texts: "\n".join(json.dumps(row, ensure_ascii=False) for row in rows_of(texts)).encode("utf-8-sig")),
    "lines of strings": (".jsonl", lambda texts: "\n".join(map(json.dumps, texts)).encode()),
    "array": (".json", lambda texts: json.dumps(rows_of(texts)).encode()),
    "array in a file of lines": (".jsonl", lambda texts: b" " + json.dumps(rows_of(texts), indent=1).encode()),
    "array of strings": (".json", lambda texts: json.dumps(texts).encode()),
    "one after another over several lines": (".json", lambda texts: "\n".join(json.dumps(row, indent=2) for row in rows_of(texts)).encode()),
    "parquet": (".parquet", lambda texts: parquet([{"text": text, "n": i} for i, text in enumerate(texts)])),
    "parquet in small pieces": (".parquet", lambda texts: parquet([{"text": text} for text in texts], row_group_size=2, compression="gzip")),
}  # fmt: skip
words = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
# Strings that break readers which split lines, translate line breaks or decode in pieces.
texts = st.lists(
    words | st.sampled_from(["a\r\nb", "\n", "", "\u2028x\u0085", "é\x1c", "\ufeff", '"', "\x00"]), max_size=8
)


@settings(max_examples=60, deadline=None)
@given(texts=texts, form=st.sampled_from(sorted(FORMS)), compression=st.sampled_from(sorted(COMPRESSIONS)))
def test_forms_of_the_same_texts(tmp_path_factory, texts, form, compression):
    suffix, write = FORMS[form]
    compression = "" if suffix == ".parquet" else compression
    file = tmp_path_factory.mktemp("form") / f"a{suffix}{compression}"
    file.write_bytes(COMPRESSIONS[compression](write(["first", *texts])))
    assert list(file_texts(file)) == ["first", *texts]
    expected = [text.strip("\r\n") for text in ["first", *texts] if text.strip("\r\n")]
    assert list(iter_documents(file)) == expected


@settings(max_examples=60, deadline=None)
@given(
    texts=texts,
    separator=st.sampled_from(["<|endoftext|>", "\n", "aa", "é"]),
    bom=st.booleans(),
    compression=st.sampled_from(sorted(COMPRESSIONS)),
)
def test_text_files(tmp_path_factory, texts, separator, bom, compression):
    text = separator.join(["first", *texts])
    file = tmp_path_factory.mktemp("text") / f"a.txt{compression}"
    file.write_bytes(COMPRESSIONS[compression](text.encode("utf-8-sig" if bom else "utf-8")))
    assert list(file_texts(file, separator=separator)) == text.split(separator)


@pytest.mark.parametrize("compression", sorted(COMPRESSIONS))
def test_several_streams_are_one_file_and_none_may_be_cut_off(tmp_path, compression):
    compress = COMPRESSIONS[compression]
    file = tmp_path / f"a.txt{compression}"
    file.write_bytes(compress(b"one\n" * 1000) + compress(b"two"))
    assert list(iter_documents(file)) == ["one\n" * 1000 + "two"]
    if compression:
        for whole in (compress(b"one\n" * 1000) + compress(b"two" * 50), compress(b"two" * 50)):
            file.write_bytes(whole[:-9])
            with pytest.raises(InputError, match="cannot load '.*a.txt.*: check that it is readable and complete"):
                list(iter_documents(file))


def test_names(tmp_path):
    formats = {
        "a.txt": (".txt", ""),
        "b.c.TXT": (".txt", ""),
        "a.jsonl.gz": (".jsonl", ".gz"),
        "a.JSON.Zst": (".json", ".zst"),
        "a.parquet": (".parquet", ""),
        "txt": None,
        ".txt": None,
        "a.gz": None,
        "a.parquet.gz": None,
        "a.txt.gz.gz": None,
        "a.tar.gz": None,
        "a.zip": None,
    }
    assert {name: file_format(tmp_path / name) for name in formats} == formats


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            '{"text": "a"}\n\n{"n": 1, "m": 2}\n',
            r"line 3 has no column 'text': set text_column to one of its columns \(n, m\), or remove",
        ),
        ('{"text": "a"}\n{}\n', r"line 2 has no column 'text': set text_column to one of its columns \(none\)"),
        ('{"text": "a"}\n{"text": 5}\n', "line 2 has int in column 'text': use strings"),
        ('{"text": "a"}\n{"text": ["b"]}\n', "line 2 has list in column 'text'"),
        ('{"text": "a"}\n5\n', "line 2 has int in column 'text'"),
        ('{"text": "a"}\n{"text": "b"', "line 2: JSON parse error: .*: fix or remove it"),
        ('{"text": "a"}\n{"text": "b"}}\n', "line 2: JSON parse error"),
        ('{"text": bad}\n{"text": "b"}\n', "line 1: JSON parse error"),
        ('[{"text": "a"}, {"n": 1}]', "row 2 has no column 'text'"),
        ('[{"text": "a"}, ', "the array: JSON parse error"),
        ('[{"text": "a"}] []', "the array: JSON parse error: there is more text after its end"),
        ('[{"text": "a"} {"text": "b"}]', "the array: JSON parse error"),
        ('{"text":\n "a"}\n{"text": b}', "after the first row: JSON parse error"),
        ("{" * 100_000, "JSON parse error"),
        ('{"text": "a"}\n' + '{"a":' * 100_000, "line 2: JSON parse error"),
        ('{"text": "a"}\n{"text": "b", "n": ' + "9" * 5000 + "}", "line 2: JSON parse error"),
    ],
)
def test_json_that_is_refused(tmp_path, content, message):
    file = tmp_path / "a.jsonl"
    file.write_text(content)
    with pytest.raises(InputError, match=message) as caught:
        list(iter_documents(file))
    assert "a.jsonl" in str(caught.value) and "\n" not in str(caught.value) and len(str(caught.value)) < 500


def test_lines_are_read_one_at_a_time(tmp_path):
    file = tmp_path / "a.jsonl"
    file.write_text('{"text": "good"}\n' * 1000 + "bad\n")
    documents = iter_documents(file)
    assert [next(documents) for _ in range(1000)] == ["good"] * 1000
    with pytest.raises(InputError, match="line 1001: JSON parse error"):
        next(documents)


@pytest.mark.parametrize(
    "kind", [pyarrow.string(), pyarrow.large_string(), pyarrow.dictionary(pyarrow.int8(), pyarrow.string())]
)
def test_parquet_types(tmp_path, kind):
    table = pyarrow.table({"n": [1, 2, 3], "text": pyarrow.array(["one", None, "one"]).cast(kind)})
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    assert list(file_texts(tmp_path / "a.parquet")) == ["one", None, "one"]


def test_parquet_that_is_refused(tmp_path):
    file = tmp_path / "a.parquet"
    cases = {
        r"row 1 has no column 'text': set text_column to one of its columns \(n\)": pyarrow.table({"n": [1]}),
        "row 1 has bytes in column 'text'": pyarrow.table({"text": [b"a"]}),
        "row 2 has int in column 'text'": pyarrow.table({"text": [None, 5]}),
        "row 1 has dict in column 'text'": pyarrow.table({"text": [{"text": "a"}]}),
        "cannot load": pyarrow.table([["a"], ["b"]], names=["text", "text"]),
        "contains no documents": pyarrow.table({"text": pyarrow.nulls(3)}),
    }
    for message, table in cases.items():
        pyarrow.parquet.write_table(table, file)
        with pytest.raises(InputError, match=message) as caught:
            list(iter_documents(file))
        assert "a.parquet" in str(caught.value)
    datasets.Dataset.from_dict({"text": ["a" * 100] * 10}).to_parquet(file)
    file.write_bytes(file.read_bytes()[:-10])
    with pytest.raises(InputError, match="cannot load"):
        list(iter_documents(file))
