"""Each file format yields the documents written into it, and each faulty file raises one clear error."""

import bz2
import gzip
import io
import json
import lzma
import sys
import tarfile
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tinyllm.corpus import json_records, text
from tinyllm.corpus.documents import Document, read_documents
from tinyllm.corpus.storybook import write_stories
from tinyllm.errors import FormatError, InputError

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

STORIES = ["One day, a cat sat.\n\nIt purred.", "Zwölf Bäume \N{SNOWMAN} \N{DOG FACE}", "The end."]
COMPRESSORS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": zstd.compress,
}
CONTENTS = {
    ".txt": "\n<|endoftext|>\n".join(STORIES),
    ".json": json.dumps([{"id": 1, "story": story} for story in STORIES]),
    ".jsonl": "\n".join(json.dumps({"text": story}) for story in STORIES),
    ".md": "\n<|endoftext|>\n".join(STORIES),
    ".rst": "\n<|endoftext|>\n".join(STORIES),
    ".csv": "id,text\r\n" + "".join(f'1,"{story}"\r\n' for story in STORIES),
    ".tsv": "story\tid\n" + "".join(f'"{story}"\t1\n' for story in STORIES),
}


def read_texts(*inputs: Path, **options: str) -> list[str]:
    return [document.text for document in read_documents(inputs, **options)]  # type: ignore[arg-type]


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def pack(path: Path, members: dict[str, bytes], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def zip_up(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


@pytest.mark.parametrize("compression", COMPRESSORS)
@pytest.mark.parametrize("ending", CONTENTS)
def test_each_format_yields_its_documents(tmp_path: Path, ending: str, compression: str) -> None:
    path = write(tmp_path / f"stories{ending}{compression}", COMPRESSORS[compression](CONTENTS[ending].encode()))
    assert list(read_documents([path])) == [Document(story, str(path)) for story in STORIES]


@pytest.mark.parametrize(
    "ending", [".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst", ".zip"]
)
def test_an_archive_yields_the_documents_of_its_files_with_their_names(tmp_path: Path, ending: str) -> None:
    members = {f"shards/data{ending}": content.encode() for ending, content in CONTENTS.items()}
    members["shards/data.json.gz"] = gzip.compress(CONTENTS[".json"].encode())
    members |= {"LICENSE": b"not read", "shards/._data.json": b"\0 nor this", "inner.zip": b"nor this"}
    path = tmp_path / f"all{ending}"
    if ending == ".zip":
        zip_up(path, members)
    else:
        plain = pack(tmp_path / "plain.bin", members).read_bytes()
        compression = {".tgz": ".gz", ".tbz2": ".bz2", ".txz": ".xz"}.get(ending, ending.removeprefix(".tar"))
        write(path, COMPRESSORS[compression](plain))
    notes: list[str] = []
    documents = list(read_documents([path], note=notes.append))
    assert [document.text for document in documents] == STORIES * (len(CONTENTS) + 1)
    assert documents[0].source == f"{path}:shards/data.txt"
    assert len(notes) == 1
    assert notes[0].startswith(f"skipped 2 files (LICENSE, inner.zip) of {path}: only files that end in")


def test_parquet_yields_the_documents_of_its_column(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow", reason="reading Parquet is an extra")
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "stories.parquet"
    parquet.write_table(pyarrow.table({"id": [1, 2, 3, 4], "text": [*STORIES, None]}), path)
    assert read_texts(path) == STORIES
    with pytest.raises(InputError, match="no key 'body'; keys seen: 'id', 'text'"):
        read_texts(path, text_key="body")
    with pytest.raises(FormatError, match="row 1: key 'id' holds a number, not text"):
        read_texts(path, text_key="id")
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(FormatError, match="not a whole Parquet file"):
        read_texts(path)


@pytest.mark.parametrize("ending", [".json", ".jsonl", ".parquet"])
def test_a_list_of_strings_is_joined_as_lines(tmp_path: Path, ending: str) -> None:
    records = [{"paragraphs": ["Zwölf Bäume,", "", "\N{SNOWMAN}."]}, {"paragraphs": []}, {"paragraphs": ["one"]}]
    path = tmp_path / f"poems{ending}"
    if ending == ".parquet":
        pyarrow = pytest.importorskip("pyarrow", reason="reading Parquet is an extra")
        parquet = pytest.importorskip("pyarrow.parquet")
        parquet.write_table(pyarrow.Table.from_pylist(records), path)
    else:
        write(path, json.dumps(records) if ending == ".json" else "\n".join(map(json.dumps, records)))
    assert read_texts(path, text_key="paragraphs") == ["Zwölf Bäume,\n\n\N{SNOWMAN}.", "one"]


def test_a_file_named_by_the_user_is_text_with_any_ending(tmp_path: Path) -> None:
    for name in ("server.log", "README", "story.html"):
        assert read_texts(write(tmp_path / name, "a\r\nb")) == ["a\nb"]
    assert read_texts(write(tmp_path / "server.log.gz", gzip.compress(b"a"))) == ["a"]


@pytest.mark.parametrize("position", [0, 5, 2**20 - 1, 2**20])
def test_a_binary_file_is_refused_with_line_and_byte(tmp_path: Path, position: int) -> None:
    path = write(tmp_path / "a.bin", b"a\n" * (position // 2) + b"a" * (position % 2) + b"\0\0")
    with pytest.raises(InputError, match=rf"a\.bin is not text: line {position // 2 + 1}, byte {position} is NUL"):
        read_texts(path)
    with pytest.raises(InputError, match=r"a\.png is not UTF-8 at line 1, byte 0 \(0x89"):
        read_texts(write(tmp_path / "a.png", b"\x89PNG\r\n\x1a\n"))


def test_concatenated_compressed_streams_are_read(tmp_path: Path) -> None:
    for ending in (".bz2", ".xz", ".gz"):
        pack_one = COMPRESSORS[ending]
        path = write(tmp_path / f"a.txt{ending}", pack_one(b"one,") + pack_one(b"") + pack_one(b" two"))
        assert read_texts(path) == ["one, two"]
    padded = lzma.compress(b"one,") + b"\0" * 8 + lzma.compress(b" two") + b"\0" * 4
    assert read_texts(write(tmp_path / "a.txt.xz", padded)) == ["one, two"]


def test_an_xz_file_over_the_memory_limit_is_refused(tmp_path: Path) -> None:
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 2**29}]
    path = write(tmp_path / "a.txt.xz", lzma.compress(b"text", filters=filters))
    with pytest.raises(FormatError, match=r"a\.txt\.xz needs more than 256 MiB to unpack; pack it again by xz -9"):
        read_texts(path)


def test_parquet_without_pyarrow_names_the_package_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(InputError, match=r"pip install 'tinyllm\[data\]'"):
        read_texts(write(tmp_path / "a.parquet", b"PAR1"))


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("file", ["a\nb\n\n \nc <|endoftext|> d"]),
        ("line", ["a", "b", "c <|endoftext|> d"]),
        ("blank-line", ["a\nb", "c <|endoftext|> d"]),
        ("endoftext", ["a\nb\n\n \nc", "d"]),
        ("auto", ["a\nb\n\n \nc", "d"]),
    ],
)
def test_each_document_rule_splits_the_text(tmp_path: Path, rule: str, expected: list[str]) -> None:
    path = write(tmp_path / "a.txt", "\n a\r\nb\n\r\n \nc <|endoftext|> d\n")
    assert read_texts(path, documents=rule) == expected


def test_a_text_without_separators_is_one_document(tmp_path: Path) -> None:
    assert read_texts(write(tmp_path / "a.txt", "a\n\nb\n")) == ["a\n\nb"]


def test_separators_across_two_pieces_are_found() -> None:
    whole = "first<|endoftext|>se<|endoftex t|>cond<|endoftext|><|endoftext|>\nlast"
    expected = whole.split("<|endoftext|>")
    for size in range(1, 20):
        pieces = (whole[start : start + size] for start in range(0, len(whole), size))
        assert list(text.split_text(pieces, "auto", "a.txt")) == expected


def test_byte_order_mark_is_dropped_and_inner_ones_are_kept(tmp_path: Path) -> None:
    assert read_texts(write(tmp_path / "a.txt", "\ufeffa\ufeffb".encode())) == ["a\ufeffb"]
    assert read_texts(write(tmp_path / "a.json", '\ufeff["a"]')) == ["a"]


def test_standard_input_is_plain_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"a<|endoftext|>b")))
    assert list(read_documents(["-"])) == [Document("a", "standard input"), Document("b", "standard input")]


def test_json_shards_and_plain_text_of_the_same_stories_agree(tmp_path: Path) -> None:
    """The layouts are those of TinyStories: arrays of objects with further fields, and one text file."""
    stories = list(write_stories(1000, seed=1))
    (tmp_path / "all").mkdir()
    for number in range(4):
        records = [{"story": story, "summary": "", "source": "GPT-4"} for story in stories[number::4]]
        write(tmp_path / "all" / f"data{number:02}.json", json.dumps(records))
    write(tmp_path / "stories.txt", "".join(f"{story}\n<|endoftext|>\n" for story in stories))
    assert sorted(read_texts(tmp_path / "all")) == sorted(read_texts(tmp_path / "stories.txt")) == sorted(stories)


@pytest.mark.parametrize("name", ["big.json.gz", "big.csv.bz2", "big.tsv.xz", "big.zip"])
def test_memory_is_bounded_by_one_document(tmp_path: Path, name: str) -> None:
    story, path = "a" * 1000, tmp_path / name
    if name == "big.json.gz":
        with gzip.open(path, "wt", compresslevel=1) as file:
            file.write("[" + ",".join([json.dumps({"story": story})] * 32_000) + "]")
    else:
        table = ("story\n" + f'"{story}"\n' * 32_000).encode()
        if name == "big.zip":
            zip_up(path, {"big.csv": table})
        else:
            write(path, COMPRESSORS[path.suffix](table))
        del table
    tracemalloc.start()
    num_documents = sum(1 for _ in read_documents([path]))
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert num_documents == 32_000
    dictionary_bytes = 2**23 if name.endswith(".xz") else 0
    assert peak_bytes < 12 * 2**20 + dictionary_bytes, "the file has 32 MB"


def test_an_item_longer_than_the_window_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stories = ["\N{DOG FACE}\n" * 500_000 + ".", "b"]
    path = write(tmp_path / "a.json", json.dumps(stories))
    assert read_texts(path) == stories
    monkeypatch.setattr(json_records, "ITEM_LIMIT_CHARACTERS", 2**21)
    with pytest.raises(FormatError, match="item 1 is longer than 2097152 characters"):
        read_texts(path)


def test_a_document_over_the_limit_is_refused_with_advice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text, "DOCUMENT_LIMIT_CHARACTERS", 100)
    with pytest.raises(InputError, match=r"more than 100 characters; .*`documents=line`"):
        read_texts(write(tmp_path / "a.txt", "a" * 101))


class TestErrors:
    """Each error is one line with the fault, the place, and the remedy."""

    @pytest.mark.parametrize("content", [b"", b" \n\n", b"\xef\xbb\xbf\n", b"<|endoftext|>\n<|endoftext|>"])
    def test_an_empty_corpus_is_refused(self, tmp_path: Path, content: bytes) -> None:
        with pytest.raises(InputError, match=r"the corpus is empty: 1 file\(s\) .*a\.txt"):
            read_texts(write(tmp_path / "a.txt", content))

    @pytest.mark.parametrize("position", [0, 17, 2**20 - 1, 2**20, 2**20 + 1])
    def test_invalid_utf8_names_line_and_byte(self, tmp_path: Path, position: int) -> None:
        good = b"abcdefg\n" * (position // 8) + b"x" * (position % 8)
        path = write(tmp_path / "a.txt", good + b"\xff" + b"more\n" * 10)
        with pytest.raises(
            InputError, match=rf"a\.txt is not UTF-8 at line {position // 8 + 1}, byte {position} \(0xff"
        ):
            read_texts(path)

    def test_utf8_cut_within_a_character_across_two_chunks(self, tmp_path: Path) -> None:
        path = write(tmp_path / "a.txt", b"a" * (2**20 - 1) + b"\xe2\x98 \n")
        with pytest.raises(InputError, match=rf"line 1, byte {2**20 - 1} \(0xe2"):
            read_texts(path)
        with pytest.raises(InputError, match=r"line 2, byte 2 \(0xe2, unexpected end of data"):
            read_texts(write(path, b"a\n\xe2\x98"))

    def test_utf16_is_recognized(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="begins like UTF-16"):
            read_texts(write(tmp_path / "a.txt", "hello".encode("utf-16")))

    @pytest.mark.parametrize("item", [{"story": 'a "b" \u2603'}, "text", {"a": [1.5, None, True], "text": "b"}])
    def test_json_cut_off_anywhere_is_reported(self, tmp_path: Path, item: object) -> None:
        whole = json.dumps([item, item])
        assert read_texts(write(tmp_path / "a.json", whole))
        for length in range(len(whole)):
            path = write(tmp_path / "a.json", whole[:length])
            with pytest.raises(FormatError, match=r"a\.json.*(cut off at line 1, byte \d+|does not begin with \[)"):
                read_texts(path)

    def test_json_cut_off_names_line_and_byte(self, tmp_path: Path) -> None:
        content = '[{"text": "ä"},\n{"text": "cut o'
        with pytest.raises(FormatError, match=rf"item 2: .*cut off at line 2, byte {len(content.encode())};"):
            read_texts(write(tmp_path / "a.json", content))

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            ('{"text": "a"}', r"does not begin with \[.*\.jsonl"),
            ('["a" "b"]', r"item 1: expected a comma or \].*line 1, byte 5"),
            ('["a",]', "item 2: not JSON"),
            ('["a"] x', r"something follows the array's \]"),
            ('["a"]["b"]', r"something follows the array's \]"),
            ("[1]", "item 1 is a number, neither an object nor a string"),
            ("[[]]", "item 1 is a list, neither"),
            ('[{"text": {"a": 1}}]', "item 1: key 'text' holds an object, not text; .*`text_key`"),
            ('[{"text": ["a", 1]}]', "item 1: key 'text' holds a list with a number in it, not a list of strings"),
            ('[{"text": ["a", null]}]', "item 1: key 'text' holds a list with null in it"),
            ('[{"text": [["a"]]}]', "item 1: key 'text' holds a list with a list in it"),
            ('[{"text": ["a", "\\ud800"]}]', r"item 1: \\ud800 is half a surrogate pair"),
            ('["\\ud800 x"]', r"item 1: \\ud800 is half a surrogate pair"),
            ('["a\nb"]', "item 1: not JSON: Invalid control character"),
            ("[" * 100_000, "item 1: nested too deeply"),
            ('[{"n": ' + "9" * 5000 + "}]", "item 1: a number with too many digits"),
            ('[{"a": tru, "text": "long enough to be sure"}]', "item 1: not JSON: Expecting value.*byte 7"),
        ],
    )
    def test_bad_json_is_named(self, tmp_path: Path, content: str, message: str) -> None:
        with pytest.raises(FormatError, match=message) as caught:
            read_texts(write(tmp_path / "a.json", content))
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize(
        ("line", "message"),
        [
            ('{"text": "cut', "line 3: the JSON is cut off at column 14"),
            ('{"text": "a"', "line 3: the JSON is cut off"),
            ('{"text": oops, "more": 1}', "line 3, column 10: not JSON: Expecting value"),
            ("[" * 100_000, "line 3: nested too deeply"),
            ("9" * 5000, "line 3: a number with too many digits"),
            ('{"text": "\\udfff"}', r"line 3: \\udfff is half"),
        ],
    )
    def test_bad_json_lines_name_the_line(self, tmp_path: Path, line: str, message: str) -> None:
        with pytest.raises(FormatError, match=message):
            read_texts(write(tmp_path / "a.jsonl", f'{{"text": "a"}}\n\n{line}\n{{"text": "b"}}'))

    def test_a_wrong_key_lists_the_keys_seen(self, tmp_path: Path) -> None:
        path = write(tmp_path / "a.json", '[{"title": "a", "body": "b"}]')
        with pytest.raises(InputError, match=r"no key 'story' or 'text'; keys seen: 'title', 'body'; .*`text_key`"):
            read_texts(path)
        with pytest.raises(InputError, match="no key 'content'; keys seen: 'title', 'body'"):
            read_texts(path, text_key="content")
        assert read_texts(path, text_key="body") == ["b"]

    def test_only_the_given_key_is_read(self, tmp_path: Path) -> None:
        path = write(tmp_path / "a.jsonl", '{"story": "a", "text": "b", "other": "c"}')
        assert [read_texts(path), read_texts(path, text_key="other")] == [["a"], ["c"]]

    @pytest.mark.parametrize("ending", [".gz", ".bz2", ".xz", ".zst"])
    def test_damaged_compression_is_named(self, tmp_path: Path, ending: str) -> None:
        whole = COMPRESSORS[ending](bytes(range(32, 127)) * 100)
        with pytest.raises(FormatError, match=rf"a\.txt\{ending} is cut off"):
            read_texts(write(tmp_path / f"a.txt{ending}", whole[:-5]))
        with pytest.raises(FormatError, match="is damaged"):
            read_texts(write(tmp_path / f"a.txt{ending}", b"text, not compressed at all"))
        with pytest.raises(FormatError, match="is damaged"):
            read_texts(write(tmp_path / f"a.txt{ending}", whole + b"garbage behind it"))

    def test_an_unreadable_file_is_named(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path = write(tmp_path / "a.txt", "a")

        def refuse(*_: object) -> None:
            raise PermissionError(13, "Permission denied", str(path))

        monkeypatch.setattr(Path, "open", refuse)
        with pytest.raises(InputError, match=r"cannot read .*a\.txt: Permission denied"):
            read_texts(path)

    def test_an_archive_without_text_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match=r"a\.tar has no file that ends in \.txt"):
            read_texts(pack(tmp_path / "a.tar", {"a.exe": b"a"}))

    def test_parquet_within_an_archive_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(FormatError, match=r"a\.tar:b\.parquet: Parquet cannot be read as a stream"):
            read_texts(pack(tmp_path / "a.tar", {"a.txt": b"a", "b.parquet": b"PAR1"}))
