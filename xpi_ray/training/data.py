"""Data sets, from a folder that has them or from their official archives.

    load("cifar10") ─► Splits(train, validation, test) ─► batches(augmented) ─► trainer

Validation is cut from the official training split by a fixed seed. Thresholds, checkpoints and
plans are chosen on it; only benchmarks read the test split.
"""

import hashlib
import io
import os
import tarfile
import urllib.request
from collections.abc import Iterator
from http.client import HTTPException
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple
from zipfile import BadZipFile

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from xpi_ray.errors import DataError

VALIDATION_IMAGES = 5_000
SPLIT_SEED = 20_240
CROP_PADDING = 4  # pixels, reflected, on each side

CIFAR10_CLASSES = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip
CIFAR10_ARCHIVE_URL = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
CIFAR10_ARCHIVE_SHA256 = "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"
CIFAR10_ARCHIVE_BYTES = 170_052_171
CIFAR10_RECORD_BYTES = 1 + 3 * 32 * 32  # label, then the red, green and blue planes


class Split(NamedTuple):
    """Labelled images."""

    images: Tensor
    """uint8 (n, 3, H, W)."""
    labels: Tensor
    """int64 (n,)."""


class Splits(NamedTuple):
    """One data set."""

    name: str
    classes: tuple[str, ...]
    train: Split
    validation: Split
    test: Split


def load(name: str) -> Splits:
    """Load a data set by name.

    Looks in ``$XPI_DATA_DIR``, then in ``../shared/data``, then fetches the official archive into
    ``~/.cache/xpi_ray`` and checks it.

    Raises:
        DataError: The name is unknown, or the data is not to be had or damaged.
    """
    if name != "cifar10":
        raise DataError(f"unknown data set {name!r}; known: cifar10")
    folder = data_folder()
    if folder is not None:
        train = _read_sheets(folder / "cifar10_train.npz")
        test = _read_sheets(folder / "cifar10_test.npz")
    else:
        train, test = _read_cifar10_archive(_fetch_cifar10())
    order = torch.from_numpy(np.random.default_rng(SPLIT_SEED).permutation(len(train.labels)))
    held_out, kept = order[:VALIDATION_IMAGES], order[VALIDATION_IMAGES:]
    return Splits(
        name,
        CIFAR10_CLASSES,
        Split(train.images[kept], train.labels[kept]),
        Split(train.images[held_out], train.labels[held_out]),
        test,
    )


def data_folder() -> Path | None:
    """The folder that holds the data sets on this machine, if there is one."""
    candidates = [os.environ.get("XPI_DATA_DIR"), "../shared/data"]
    for candidate in candidates:
        if candidate and (Path(candidate) / "cifar10_train.npz").is_file():
            return Path(candidate)
    return None


def batches(split: Split, size: int, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
    """One epoch of shuffled batches, each image randomly cropped and flipped.

    The last incomplete batch is left out, as its batch norm statistics would be poor.
    """
    order = torch.randperm(len(split.labels), generator=generator)
    for index in order.split(size):
        if len(index) == size:
            yield augment(split.images[index], generator), split.labels[index]


def augment(images: Tensor, generator: torch.Generator) -> Tensor:
    """Crop after padding by reflection, and mirror one half, each image at random."""
    n, _, height, width = images.shape
    padded = F.pad(images.float(), [CROP_PADDING] * 4, mode="reflect").to(images.dtype)
    reach = 2 * CROP_PADDING + 1
    top, left = torch.randint(reach, (2, n), generator=generator)
    rows = top[:, None] + torch.arange(height)  # (n, H)
    columns = left[:, None] + torch.arange(width)  # (n, W)
    mirrored = torch.rand(n, generator=generator) < 0.5
    columns = torch.where(mirrored[:, None], columns.flip(1), columns)
    each = torch.arange(n)[:, None, None]
    cropped = padded.permute(0, 2, 3, 1)[each, rows[:, :, None], columns[:, None, :]]
    return cropped.permute(0, 3, 1, 2).contiguous()


def _read_sheets(path: Path) -> Split:
    """Read images kept as lossless sheets, in the order of the official split.

    Raises:
        DataError: The file is missing or damaged.
    """
    try:
        return _decode_sheets(path)
    except (OSError, EOFError, KeyError, ValueError, BadZipFile) as err:
        raise DataError(f"{path} cannot be read ({err}); get the data set anew") from err


def _decode_sheets(path: Path) -> Split:
    with path.open("rb") as opened, np.load(opened) as file:
        data, offsets = file["sheets"].tobytes(), file["sheet_offsets"]
        _, height, width, channels = (int(size) for size in file["shape"])
        sheets = [
            np.asarray(Image.open(io.BytesIO(data[start:end])).convert("RGB"))
            for start, end in pairwise(offsets)
        ]
        pixels = np.concatenate([s.reshape(-1, height, width, channels) for s in sheets])
        labels = file["labels"].astype(np.int64)
    images = torch.from_numpy(np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)))
    return Split(images, torch.from_numpy(labels))


def _fetch_cifar10() -> Path:
    """Return the official archive, fetching it once; the checksum is that of the whole file."""
    path = Path.home() / ".cache" / "xpi_ray" / "cifar-10-binary.tar.gz"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        try:
            with urllib.request.urlopen(CIFAR10_ARCHIVE_URL, timeout=60) as answer:
                data = answer.read(CIFAR10_ARCHIVE_BYTES + 1)
        except (OSError, HTTPException) as err:
            raise DataError(
                f"CIFAR-10 is not in $XPI_DATA_DIR, and {CIFAR10_ARCHIVE_URL} cannot be fetched "
                f"({err}); fetch it elsewhere and put it at {path}"
            ) from err
        part.write_bytes(data)
        part.rename(path)
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != CIFAR10_ARCHIVE_SHA256:
        raise DataError(
            f"{path} is damaged: expected sha256 {CIFAR10_ARCHIVE_SHA256}, found {found}; "
            "delete it and try again"
        )
    return path


def _read_cifar10_archive(path: Path) -> tuple[Split, Split]:
    """Read the official binary archive; it holds plain records and no pickles."""
    names = [f"cifar-10-batches-bin/data_batch_{i}.bin" for i in range(1, 6)]
    with tarfile.open(path) as archive:
        train = [_read_member(archive, name) for name in names]
        test = _read_member(archive, "cifar-10-batches-bin/test_batch.bin")
    return _decode_records(b"".join(train)), _decode_records(test)


def _read_member(archive: tarfile.TarFile, name: str) -> bytes:
    member = archive.extractfile(name) if name in archive.getnames() else None
    if member is None:
        raise DataError(f"the CIFAR-10 archive has no file {name}")
    return member.read()


def _decode_records(data: bytes) -> Split:
    records = np.frombuffer(data, np.uint8).reshape(-1, CIFAR10_RECORD_BYTES)
    images = torch.from_numpy(records[:, 1:].reshape(-1, 3, 32, 32).copy())
    return Split(images, torch.from_numpy(records[:, 0].astype(np.int64)))
