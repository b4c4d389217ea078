"""Hostile tar and zip files: nothing is written, memory stays small, and each error is clear."""

import bz2
import gzip
import io
import json
import lzma
import os
import struct
import subprocess
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

MEMORY_BYTES = 512 * 2**20
TEXT = b"A story of a fox."
EVIL = "tinyllm-was-here.txt"


def member(name: str, content: bytes = TEXT, kind: bytes = tarfile.REGTYPE, **fields: object) -> bytes:
    """Header and content of one member, without any check."""
    info = tarfile.TarInfo(name)
    info.type = kind
    info.size = len(content)
    for key, value in fields.items():
        setattr(info, key, value)
    return info.tobuf(tarfile.GNU_FORMAT) + content + b"\0" * (-len(content) % 512)


def archive(*members: bytes) -> bytes:
    return b"".join(members) + b"\0" * 1024


def bomb(num_megabytes: int, content: bytes) -> bytes:
    """A .tar.gz whose one member unpacks to the given megabytes of `content`; built without holding them in memory."""
    packer = zlib.compressobj(1, zlib.DEFLATED, 31)
    info = tarfile.TarInfo({b"[": "bomb.json", b",": "bomb.csv"}.get(content[:1], "bomb.txt"))
    info.size = num_megabytes * 2**20
    parts = [packer.compress(info.tobuf(tarfile.GNU_FORMAT))]
    block = content * (2**20 // len(content))
    parts += [packer.compress(block + b"a" * (2**20 - len(block))) for _ in range(num_megabytes)]
    parts.append(packer.compress(b"\0" * 1024) + packer.flush())
    return b"".join(parts)


def pax(records: bytes, name: str = "a.txt") -> bytes:
    return member("pax", records, tarfile.XHDTYPE) + member(name)


def record(key: bytes, value: bytes) -> bytes:
    length = len(key) + len(value) + 3
    while len(str(length)) + len(key) + len(value) + 3 != length:
        length = len(str(length)) + len(key) + len(value) + 3
    return b"%d %s=%s\n" % (length, key, value)


def huge_header(kind: bytes) -> bytes:
    """A header that claims a name of four gigabytes."""
    info = tarfile.TarInfo("long")
    info.type, info.size = kind, 2**32
    return info.tobuf(tarfile.GNU_FORMAT)


def hostile(place: Path) -> dict[str, tuple[bytes, str]]:
    """Archive -> a part of its error; empty if its text is read and its name is only a label."""
    up, there = f"../../{EVIL}", str(place / EVIL)
    links = {"symlink": tarfile.SYMTYPE, "hardlink": tarfile.LNKTYPE}
    devices = {"char": tarfile.CHRTYPE, "block": tarfile.BLKTYPE, "fifo": tarfile.FIFOTYPE}
    return {
        "up": (archive(member(up)), ""),
        "deep-up": (archive(member("a/" + "../" * 40 + EVIL)), ""),
        "absolute": (archive(member(there)), ""),
        "double-slash": (archive(member("/" + there)), ""),
        "pax-absolute": (archive(pax(record(b"path", there.encode()))), ""),
        "gnu-long-absolute": (archive(member("long", there.encode(), b"L"), member("a.txt")), ""),
        "backslashes": (archive(member("..\\..\\" + EVIL)), "has no file that ends in"),
        "nul-in-name": (archive(pax(record(b"path", b"a.txt\0/../x.txt"))), ""),
        "terminal": (archive(member("\x1b[2J\r\n.txt")), ""),
        **{
            f"{name}-then-through-it": (
                archive(member("door", b"", kind, linkname=str(place)), member(f"door/{EVIL}")),
                "",
            )
            for name, kind in links.items()
        },
        **{
            f"{name}-alone": (archive(member("a.txt", b"", kind, linkname="/etc/passwd")), "has no file that ends in")
            for name, kind in (links | devices).items()
        },
        "sparse": (archive(member("a.txt", TEXT, b"S")), "is stored sparse"),
        "pax-sparse": (archive(pax(record(b"GNU.sparse.realsize", b"9" * 12))), "is stored sparse"),
        "bomb-of-letters": (bomb(200, b"a"), "has a document of more than"),
        "bomb-of-emoji": (bomb(150, "🦊".encode()), "has a document of more than"),
        "bomb-of-json": (bomb(100, b'[{"text": "'), "bomb.json"),
        **{
            f"bomb-of-{name}": (
                archive(member(f"a.txt.{ending}", compress(b"a" * 2**27))),
                "has a document of more than",
            )
            for name, ending, compress in (("bzip2", "bz2", bz2.compress), ("xz", "xz", lzma.compress))
        },
        "bomb-of-commas": (bomb(100, b","), "has a document of more than"),
        "xz-of-much-memory": (archive(member("a.txt.xz", greedy_xz())), "needs more than 256 MiB to unpack"),
        "zip-bomb": (zip_of({"bomb.txt": b"a" * 2**27}), "has a document of more than"),
        "zip-bomb-of-json": (zip_of({"bomb.json": b'[{"text": "' + b"a" * 2**27}), "has a document of more than"),
        "zip-overlapping": (overlapping_zip(), "its members overlap"),
        "zip-up": (zip_of({up: TEXT, "/" + there: TEXT, "..\\..\\" + EVIL: TEXT}), ""),
        "zip-link": (zip_of({"a.txt": b"/etc/passwd"}, mode=0o120777), "has no file that ends in"),
        "zip-many": (zip_of({f"{number}.bin": b"" for number in range(60_000)}), "has no file that ends in"),
        "zip-terminal": (zip_of({"\x1b[2J\r\n.txt": TEXT}), ""),
        "zip-cut": (zip_of({"a.txt": TEXT})[:-30], "is not a whole zip archive"),
        "gzip-in-gzip": (archive(member("inner.txt.gz", gzip.compress(b"a" * 2**27))), "has a document of more than"),
        "duplicates": (archive(*[member("a.txt", b"%d" % n) for n in range(2000)]), ""),
        "endless-name": (archive(member("long", b"n" * 2**21, b"L"), member("a.txt")), "a header of 2097152 bytes"),
        "endless-claim": (huge_header(b"L"), "a header of 4294967296 bytes"),
        "endless-pax": (huge_header(b"x"), "a header of 4294967296 bytes"),
        "endless-headers": (archive(member("l", b"x\0", b"L") * 20_000), "has no file that ends in"),
        "pax-size-beyond": (archive(pax(record(b"size", b"9" * 15))), "is cut off"),
        "negative-size": (archive(negative()), "where a number belongs"),
        "cut": (archive(member("a.txt"))[:700], "is cut off"),
    }


def greedy_xz() -> bytes:
    """A file of a few bytes that requests a dictionary of 1.5 GiB."""
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 2**29}]
    content = bytearray(lzma.compress(TEXT, filters=filters, check=lzma.CHECK_NONE))
    assert content[12 + 4] == 34, "the dictionary's size in the block's header"
    content[12 + 4] = 37
    content[12 + 8 : 12 + 12] = struct.pack("<L", zlib.crc32(content[12 : 12 + 8]))
    return bytes(content)


def zip_of(members: dict[str, bytes], mode: int = 0o100644) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as opened:
        for name, content in members.items():
            info = zipfile.ZipInfo(name)
            info.external_attr = mode << 16
            opened.writestr(info, content, zipfile.ZIP_DEFLATED)
    return file.getvalue()


def overlapping_zip() -> bytes:
    """A zip whose directory lists one member a thousand times: a few kilobytes that claim gigabytes."""
    whole = bytearray(zip_of({"a.txt": b"\n" * 2**24}))
    start, end = whole.index(b"PK\1\2"), whole.index(b"PK\5\6")
    entry, mark = whole[start:end], bytearray(whole[end:])
    struct.pack_into("<2HL", mark, 8, 1000, 1000, 1000 * len(entry))
    return bytes(whole[:start] + entry * 1000 + mark)


def negative() -> bytes:
    header = bytearray(member("a.txt"))
    header[124:136] = b"-0000000001\0"
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header[:512])
    return bytes(header)


@pytest.mark.promise("11 hostile archives: nothing written, under 512 MB, clear", fast=42, full=42)
def test_hostile_archives(count: int, tell: Callable[[str], None], tmp_path: Path) -> None:
    place, folder = tmp_path / "place", tmp_path / "archives"
    place.mkdir()
    folder.mkdir()
    cases = hostile(place)
    assert len(cases) == count
    paths = []
    for name, (content, _) in cases.items():
        packed = content[:2] == b"\x1f\x8b"
        paths.append(folder / (f"{name}.zip" if name.startswith("zip-") else f"{name}.tar{'.gz' if packed else ''}"))
        paths[-1].write_bytes(content)
    program = [sys.executable, str(Path(__file__).with_name("read_archives.py")), *map(str, paths)]
    child = subprocess.run(program, capture_output=True, text=True, cwd=place, check=False)
    assert child.returncode == 0, child.stderr[-3000:]
    results = [json.loads(line) for line in child.stdout.splitlines()]
    for path, (name, (_, refusal)), result in zip(paths, cases.items(), results, strict=True):
        assert bool(result["refusal"]) == bool(refusal), (name, result)
        assert refusal in result["refusal"], (name, result)
        assert not refusal or str(path) in result["refusal"]
        assert "\n" not in result["refusal"]
        assert result["documents"] > 0 or refusal, name
    assert list(place.iterdir()) == []
    assert sorted(folder.iterdir()) == sorted(paths)
    assert not any(os.path.lexists(folder_above / EVIL) for folder_above in (Path("/"), *place.parents))
    peak = results[-1]["peak_bytes"]
    assert peak < MEMORY_BYTES
    refused = sum(bool(result["refusal"]) for result in results)
    tell(f"{refused} refused, {count - refused} read with names as labels; {peak / 2**20:.0f} MiB at most")


def test_the_bombs_are_valid_archives() -> None:
    with tarfile.open(fileobj=io.BytesIO(bomb(3, b"a")), mode="r:gz") as opened:
        inside = opened.extractfile("bomb.txt")
        assert inside is not None
        assert inside.read() == b"a" * 3 * 2**20
