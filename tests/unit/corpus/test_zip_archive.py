"""Tests the zip reader on archives that Python's zipfile wrote, and on damaged ones."""

import contextlib
import io
import random
import struct
import zipfile
import zlib
from functools import partial

import pytest

from tinyllm.corpus.zip_archive import read_members
from tinyllm.errors import FormatError

CONTENTS = {
    "a.txt": b"a story " * 1000,
    "Zo\xeb/\u2603.txt": b"",
    "deep/" * 40 + "b.txt": random.Random(0).randbytes(300_000),
    "../up.txt": b"\0" * 70_000,
}


def pack(members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED, comment: bytes = b"") -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name), content, method)
        archive.comment = comment
    return file.getvalue()


def unpack(archive: bytes, read_bytes: int = 1000) -> dict[str, bytes]:
    return {
        member.name: b"".join(iter(partial(member.read, read_bytes), b""))
        for member in read_members(io.BytesIO(archive), "a.zip")
    }


@pytest.mark.parametrize("read_bytes", [1, 1000, 2**20])
@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_names_and_contents_are_read_back(method: int, read_bytes: int) -> None:
    contents = CONTENTS if read_bytes > 1 else {"a.txt": b"a story " * 1000, "b.txt": b""}
    assert unpack(pack(contents, method, comment=b"made by hand"), read_bytes) == contents


def test_sizes_after_the_data_are_read() -> None:
    class Pipe(io.BytesIO):
        def seekable(self) -> bool:
            return False

        def tell(self) -> int:
            raise OSError("not a file")

    file = Pipe()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in CONTENTS.items():
            archive.writestr(name, content)
    assert unpack(file.getvalue()) == CONTENTS


def test_zip64_sizes_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zipfile, "ZIP64_LIMIT", 100)
    monkeypatch.setattr(zipfile, "ZIP_FILECOUNT_LIMIT", 1)
    archive = pack(CONTENTS, zipfile.ZIP_STORED)
    assert b"PK\6\6" in archive
    assert unpack(archive) == CONTENTS


def test_an_archive_after_a_program_is_read() -> None:
    assert unpack(b"#!/bin/sh\n" * 10 + pack(CONTENTS)) == CONTENTS


def test_members_may_be_left_unread() -> None:
    assert [member.name for member in read_members(io.BytesIO(pack(CONTENTS)), "a.zip")] == list(CONTENTS)


def test_folders_and_links_are_skipped() -> None:
    link = zipfile.ZipInfo("link.txt")
    link.external_attr = 0o120777 << 16
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.mkdir("folder") if hasattr(archive, "mkdir") else archive.writestr("folder/", b"")
        archive.writestr(link, "/etc/passwd")
        archive.writestr("last.txt", b"a")
    assert unpack(file.getvalue()) == {"last.txt": b"a"}


def test_control_characters_in_names_are_replaced() -> None:
    assert list(unpack(pack({"\x1b[2Jred.txt": b""}))) == ["?[2Jred.txt"]


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_methods_are_named(method: int) -> None:
    with pytest.raises(FormatError, match=rf"a\.zip: a\.txt is compressed by method {method}, not by deflate"):
        unpack(pack({"a.txt": b"a"}, method))


def test_encrypted_members_are_named() -> None:
    archive = bytearray(pack({"a.txt": b"a"}))
    archive[archive.index(b"PK\1\2") + 8] |= 1
    with pytest.raises(FormatError, match=r"a\.zip: a\.txt is encrypted"):
        unpack(bytes(archive))


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_changed_content_is_found(method: int) -> None:
    archive = bytearray(pack({"a.txt": b"a story of a fox"}, method))
    archive[40] ^= 1
    with pytest.raises(FormatError, match=r"a\.zip:a\.txt is damaged"):
        unpack(bytes(archive))


@pytest.mark.parametrize("claimed", [0, 5, 17, 2**31])
def test_a_wrong_size_is_found(claimed: int) -> None:
    archive = bytearray(pack({"a.txt": b"a story of a fox"}))
    struct.pack_into("<L", archive, archive.index(b"PK\1\2") + 24, claimed)
    with pytest.raises(FormatError, match=r"a\.zip:a\.txt is damaged: its (size|CRC-32)"):
        unpack(bytes(archive))


def test_an_archive_cut_off_anywhere_is_refused() -> None:
    whole = pack({"a.txt": b"a" * 300, "b.txt": b"b"})
    for length in range(len(whole)):
        with pytest.raises(FormatError, match=r"a\.zip"):
            unpack(whole[:length])


def test_members_that_overlap_are_refused() -> None:
    """Builds many entries that point to one member: a bomb of a few kilobytes that claims terabytes."""
    content = zlib.compress(b"\0" * 2**20, 9, -zlib.MAX_WBITS)
    crc = zlib.crc32(b"\0" * 2**20)
    sizes = struct.pack("<3L", crc, len(content), 2**20)
    member = b"PK\3\4" + struct.pack("<5H", 20, 0, 8, 0, 0) + sizes + struct.pack("<2H", 5, 0) + b"a.txt" + content
    entry = b"PK\1\2" + struct.pack("<6H", 20, 20, 0, 8, 0, 0) + sizes + struct.pack("<5H2L", 5, 0, 0, 0, 0, 0, 0)
    directory = (entry + b"a.txt") * 1000
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 1000, 1000, len(directory), len(member), 0)
    with pytest.raises(FormatError, match=r"a\.zip is not a whole zip archive: its members overlap"):
        unpack(member + directory + end, 2**20)


def test_damaged_archives_raise_only_our_error() -> None:
    whole = pack({"a.txt": b"a story of a fox" * 10, "b.txt": b"b"})
    for number in range(2000):
        dice = random.Random(number)
        damaged = bytearray(whole)
        for _ in range(dice.randint(1, 4)):
            damaged[dice.randrange(len(damaged))] = dice.choice((0, 1, 0x7F, 0xFF, dice.randrange(256)))
        with contextlib.suppress(FormatError):
            unpack(bytes(damaged))
