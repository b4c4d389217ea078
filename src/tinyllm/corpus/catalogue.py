"""The corpora that can be downloaded by name: addresses, sizes and checksums."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class KnownCorpus:
    """A file, with equal bytes at each of its addresses."""

    file_name: str
    num_bytes: int
    sha256: str
    urls: dict[str, str]
    """Address by source, such as "huggingface"."""


# TinyStories (Eldan & Li 2023), CDLA-Sharing-1.0: 50 JSON shards of stories by GPT-3.5 and GPT-4. Size and SHA-256
# belong to the original at Hugging Face; the copy at ModelScope must be the same file.
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
