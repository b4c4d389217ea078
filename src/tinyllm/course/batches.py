"""The tutorial's `PretokDataset` and `Task.iter_batches`: windows of the token ids that preprocess.py wrote.

Names, order and split are those of Tiny-LLM's preprocess.py. They serve programs that follow the document; `train.py`
uses `tinyllm.training`, whose order is a function of the step.
"""

import random
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from tinyllm.course.layout import CORPUS_FOLDER, shard_folder
from tinyllm.course.shards import split_files
from tinyllm.errors import InputError, UsageError
from tinyllm.shards.encoding import Tokens, dtype_for
from tinyllm.shards.format import read_tokens

Window = tuple[Tensor, Tensor]
LLAMA2_VOCAB_SIZE = 32_000


class PretokDataset(IterableDataset[Window]):
    """An infinite stream of windows in random order: (inputs, targets), int64 tensors of `max_seq_len` ids.

    `split` is "train", or any other value for the test file. `vocab_source` is "custom" for `data/tok<vocab_size>/`,
    or "llama2" for `.bin` files next to the corpus. Targets are the inputs shifted by one.
    """

    def __init__(self, split: str, max_seq_len: int, vocab_size: int, vocab_source: str) -> None:
        super().__init__()
        if vocab_source not in ("custom", "llama2"):
            raise UsageError(f"vocab_source is {vocab_source!r}; it can be 'custom' or 'llama2'")
        if max_seq_len < 1:
            raise UsageError(f"max_seq_len is {max_seq_len}; at least 1 is needed")
        self.split, self.max_seq_len = split, max_seq_len
        self.vocab_size, self.vocab_source = vocab_size, vocab_source

    def __iter__(self) -> Iterator[Window]:
        """Iterates over the files endlessly; the order depends only on the data worker and the rank.

        Raises InputError if a file is missing, or too short for a window.
        """
        draw = random.Random(self._seed())
        files = split_files(self._folder(), self.split)
        while True:
            draw.shuffle(files)
            for file in files:
                ids = self._read(file)
                numbers = list(range(len(ids) // self.max_seq_len - 1))
                draw.shuffle(numbers)
                yield from (self._window(ids, number) for number in numbers)

    def _seed(self) -> int:
        worker = get_worker_info()
        rank = torch.distributed.get_rank() if torch.distributed.is_initialized() else 0
        seed = 42 + (worker.id if worker else 0) + 1337 * rank
        print(f"Created a PretokDataset with rng seed {seed}")
        return seed

    def _folder(self) -> Path:
        return CORPUS_FOLDER if self.vocab_source == "llama2" else shard_folder(self.vocab_size)

    def _read(self, file: Path) -> Tokens:
        vocab_size = LLAMA2_VOCAB_SIZE if self.vocab_source == "llama2" else self.vocab_size
        ids = read_tokens(file, dtype_for(vocab_size))
        if len(ids) // self.max_seq_len < 2:
            raise InputError(
                f"{file} has {len(ids)} tokens; at least {2 * self.max_seq_len} are needed for windows of "
                f"max_seq_len {self.max_seq_len}"
            )
        return ids

    def _window(self, ids: Tokens, number: int) -> Window:
        start = number * self.max_seq_len
        window = torch.from_numpy(ids[start : start + self.max_seq_len + 1].astype("int64"))
        return window[:-1], window[1:]


class Task:
    """Makes batches for a training loop."""

    @staticmethod
    def iter_batches(
        batch_size: int, device: str | torch.device, num_workers: int = 0, **dataset_kwargs: object
    ) -> Iterator[Window]:
        """Batches of (inputs, targets) on `device`, each (batch_size, max_seq_len); kwargs go to `PretokDataset`."""
        is_cuda = torch.device(device).type == "cuda"
        dataset = PretokDataset(**dataset_kwargs)  # type: ignore[arg-type]
        loader = DataLoader(dataset, batch_size=batch_size, pin_memory=is_cuda, num_workers=num_workers)
        for inputs, targets in loader:
            yield inputs.to(device, non_blocking=True), targets.to(device, non_blocking=True)
