"""Corpora that can be fetched by name: where they are, how large, and their checksum."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class KnownCorpus:
    """One file, the same at each of its sources."""

    file_name: str
    num_bytes: int
    sha256: str
    urls: dict[str, str]
    """The addresses by source."""


# TinyStories (Eldan & Li 2023), CDLA-Sharing-1.0: 50 JSON shards of stories by GPT-3.5 and GPT-4. Size and SHA-256 are
# those of the original at Hugging Face; the copy at ModelScope has to be the same file.
TINYSTORIES = KnownCorpus(
    file_name="TinyStories_all_data.tar.gz",
    num_bytes=1_608_001_638,
    sha256="26cf7605aca15bc4ea6fa637256400d9d01317b28ed296172b2d1dd160cd7699",
    urls={
        "modelscope": "https://modelscope.cn/datasets/AI-ModelScope/TinyStories/resolve/master/TinyStories_all_data.tar.gz",
        "huggingface": "https://huggingface.co/datasets/roneneldan/TinyStories/resolve/main/TinyStories_all_data.tar.gz",
    },
)
KNOWN_CORPORA = {"tinystories": TINYSTORIES}
