"""The fixtures are what their READMEs say, and no test looks for data that a clone does not have."""

import hashlib
import re
from pathlib import Path

from reference_data import STORIES_260K, TOKENIZERS, read_vectors

TESTS = Path(__file__).parent.parent


def test_stories260k_is_what_its_readme_says() -> None:
    table = dict(
        re.findall(r"^\| `(\S+)` \|.*`([0-9a-f]{64})` \|$", (STORIES_260K / "README.md").read_text(), re.MULTILINE)
    )
    files = {path.name for path in STORIES_260K.iterdir()} - {"README.md", "LICENSE"}
    assert set(table) == files
    for name, checksum in table.items():
        assert hashlib.sha256((STORIES_260K / name).read_bytes()).hexdigest() == checksum, name
    assert "MIT License" in (STORIES_260K / "LICENSE").read_text()


def test_both_tokenizers_have_ids_for_the_same_texts() -> None:
    llama2, tok4096 = map(read_vectors, TOKENIZERS)
    assert [vector.text for vector in llama2] == [vector.text for vector in tok4096]
    assert all(vector.with_bos_and_eos == [1, *vector.ids, 2] for vector in llama2 + tok4096)


def test_no_test_is_skipped_for_missing_data() -> None:
    """`reference_data.development_files` adds cases; only that module knows where the development setup keeps data."""
    for path in TESTS.rglob("*.py"):
        if path.name not in ("reference_data.py", Path(__file__).name):
            text = path.read_text(encoding="utf-8")
            assert not re.search(r"shared_data|[\"']shared[\"'/]", text), path
