"""Tests the tar reader on archives that Python's tarfile wrote, and on damaged ones."""

import io
import tarfile
from functools import partial

import pytest

from tinyllm.corpus.archive import read_members
from tinyllm.corpus.streams import ByteStream
from tinyllm.errors import FormatError

NAMES = ["a.txt", "Zoë/" + "ä" * 60 + ".txt", "n" * 98 + ".txt", "/".join(["deep"] * 60) + "/e.txt", "/etc/x", "../up"]
ONE_MEMBER_BYTES = 1024


def pack(members: dict[str, bytes], form: int = tarfile.PAX_FORMAT) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=form, encoding="utf-8") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return file.getvalue()


def unpack(archive: bytes, read_bytes: int = 100) -> dict[str, bytes]:
    stream = ByteStream("a.tar", io.BytesIO(archive))
    return {member.name: b"".join(iter(partial(member.read, read_bytes), b"")) for member in read_members(stream)}


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_names_and_contents_are_read_back(form: int) -> None:
    names = [name for name in NAMES if len(name.encode()) < 100] if form == tarfile.USTAR_FORMAT else NAMES
    members = {name: name.encode() * number for number, name in enumerate(names)}
    assert unpack(pack(members, form)) == members


def test_ustar_prefix_is_part_of_the_name() -> None:
    name = "folder/" * 20 + "file.txt"
    assert unpack(pack({name: b"a"}, tarfile.USTAR_FORMAT)) == {name: b"a"}


def test_members_may_be_left_unread() -> None:
    stream = ByteStream("a.tar", io.BytesIO(pack(dict.fromkeys(NAMES, b"a" * 5000))))
    assert [member.name for member in read_members(stream)] == NAMES


def test_links_devices_and_folders_are_skipped() -> None:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for kind in (
            tarfile.SYMTYPE,
            tarfile.LNKTYPE,
            tarfile.CHRTYPE,
            tarfile.BLKTYPE,
            tarfile.FIFOTYPE,
            tarfile.DIRTYPE,
        ):
            info = tarfile.TarInfo(f"x{kind!r}.txt")
            info.type, info.linkname = kind, "/etc/passwd"
            archive.addfile(info)
        archive.addfile(tarfile.TarInfo("last.txt"))
    assert unpack(file.getvalue()) == {"last.txt": b""}


def test_an_archive_without_members_is_empty() -> None:
    assert unpack(pack({})) == {}


def test_control_characters_in_names_are_replaced() -> None:
    assert list(unpack(pack({"\x1b[2Jred.txt": b""}, tarfile.GNU_FORMAT))) == ["?[2Jred.txt"]


def test_sparse_files_are_refused() -> None:
    archive = bytearray(pack({"a.txt": b"a"}))
    archive[156:157] = b"S"
    with pytest.raises(FormatError, match=r"a\.tar: a\.txt is stored sparse"):
        unpack(with_checksum(archive))


def with_checksum(archive: bytearray) -> bytes:
    archive[148:156] = b" " * 8
    archive[148:156] = b"%06o\0 " % sum(archive[:512])
    return bytes(archive)


@pytest.mark.parametrize(
    "length", [0, 1, 511, 512, 600, ONE_MEMBER_BYTES, ONE_MEMBER_BYTES + 100, 2 * ONE_MEMBER_BYTES]
)
def test_an_archive_cut_off_before_its_end_mark_is_refused(length: int) -> None:
    archive = pack({"a.txt": b"a" * 300, "b.txt": b"b" * 300})
    with pytest.raises(FormatError, match=r"a\.tar is cut off: the archive ends before its end mark"):
        unpack(archive[:length])


def test_a_damaged_header_is_an_error() -> None:
    archive = bytearray(pack({"a.txt": b"a", "b.txt": b"b"}))
    archive[ONE_MEMBER_BYTES] ^= 1
    with pytest.raises(FormatError, match="not a tar archive, or is damaged: a header's checksum is wrong"):
        unpack(bytes(archive))


def test_an_oversized_header_is_refused() -> None:
    archive = bytearray(pack({"a.txt": b"a"}))
    archive[156:157] = b"x"
    archive[124:136] = b"77777777777\0"
    with pytest.raises(FormatError, match="a header of 8589934591 bytes, more than 1048576"):
        unpack(with_checksum(archive))


@pytest.mark.parametrize("size", [b"-0000000001\0", b"12345678\xff\xff\xff\xff", b"\xff" * 12])
def test_invalid_sizes_are_refused(size: bytes) -> None:
    archive = bytearray(pack({"a.txt": b"a"}))
    archive[124:136] = size
    with pytest.raises(FormatError, match="where a number belongs"):
        unpack(with_checksum(archive))


def test_sizes_in_base_256_are_read() -> None:
    archive = bytearray(pack({"a.txt": b"abc"}))
    archive[124:136] = b"\x80" + (3).to_bytes(11, "big")
    assert unpack(with_checksum(archive)) == {"a.txt": b"abc"}


@pytest.mark.parametrize("records", [b"7 path=", b"9999 path=a\n", b"0 path=a\n", b"no record"])
def test_damaged_pax_records_are_refused(records: bytes) -> None:
    archive = bytearray(pack({"a.txt": records.ljust(20, b"!")}))
    archive[156:157] = b"x"
    with pytest.raises(FormatError, match="not of the form LENGTH KEY=VALUE"):
        unpack(with_checksum(archive))
