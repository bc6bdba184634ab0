"""Data sets, from a folder that has them or from their official archives.

    load("cifar10") ─► Splits(train, validation, test) ─► batches(augmented) ─► trainer

Validation is cut from the official training split by a fixed seed. Thresholds, checkpoints and
plans are chosen on it; only benchmarks read the test split.
"""

import io
import os
from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.lib.npyio import NpzFile
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from xpi_ray.errors import DataError
from xpi_ray.training.archives import (
    MNIST_CLASSES,
    Labelled,
    Official,
    coloured,
    decode_photos,
    read_official,
    short_names,
)

Track = Callable[[Iterable[tuple[Tensor, Tensor]], int, str], Iterable[tuple[Tensor, Tensor]]]
"""Shows progress over batches: (batches, their number, a description) -> the same batches."""

SPLIT_SEED = 20_240
CROP_PADDING = 4  # pixels, reflected, on each side


class Split(NamedTuple):
    """Labelled images."""

    images: Tensor
    """uint8 (n, 3, H, W)."""
    labels: Tensor
    """int64 (n,)."""
    mirrored: bool = True
    """Whether training may show them mirrored too; a mirrored digit is none."""


class Splits(NamedTuple):
    """One data set."""

    name: str
    classes: tuple[str, ...]
    train: Split
    validation: Split
    test: Split


class DataSet(NamedTuple):
    """How one data set lies in a folder, and how it is cut and shown."""

    train_file: str
    test_file: str
    decode: Callable[[NpzFile], tuple[tuple[str, ...], Labelled]]
    validation_images: int
    mirrored: bool = True


def load(name: str) -> Splits:
    """Load a data set by name: cifar10, cifar100, tiny_imagenet or mnist.

    Looks in ``$XPI_DATA_DIR``, or without that variable in ``../shared/data``, and then fetches
    the official archives into ``~/.cache/xpi_ray`` and checks them. The archives hold the whole
    official train split, the folder may hold less of it (40,000 images of CIFAR-100, compressed
    with loss; 20,000 of Tiny ImageNet; 20,000 of MNIST): figures made from one do not compare
    with figures made from the other.

    Test is the official test split, except for Tiny ImageNet: its official validation split, as
    the labels of its test split are not public. Grey images are repeated in three channels.

    Raises:
        DataError: The name is unknown, or the data is not to be had or damaged.
    """
    data_set = _data_set(name)
    folder = data_folder(name)
    if folder is not None:
        official, place = _read_folder(folder, data_set), str(folder)
    elif os.environ.get("XPI_DATA_DIR"):
        raise DataError(
            f"$XPI_DATA_DIR is {os.environ['XPI_DATA_DIR']}, which has no {data_set.train_file}; "
            "put it there, or unset the variable to have the official archives fetched"
        )
    else:
        official, place = read_official(name), "the official archives"
    _check(official, data_set.validation_images, f"{name} from {place}")
    train, test = (
        Split(_tensor(images), _tensor(labels), data_set.mirrored)
        for images, labels in (official.train, official.test)
    )
    order = torch.from_numpy(np.random.default_rng(SPLIT_SEED).permutation(len(train.labels)))
    held_out, kept = order[: data_set.validation_images], order[data_set.validation_images :]
    return Splits(name, official.classes, _pick(train, kept), _pick(train, held_out), test)


def data_folder(name: str = "cifar10") -> Path | None:
    """The folder that holds a data set on this machine, if there is one.

    Where ``$XPI_DATA_DIR`` is set, no other folder is looked at.

    Raises:
        DataError: The name is unknown.
    """
    folder = Path(os.environ.get("XPI_DATA_DIR") or "../shared/data")
    return folder if (folder / _data_set(name).train_file).is_file() else None


def take(split: Split, n: int) -> Split:
    """The first ``n`` images of a split.

    Train and validation are in a random order that never changes, so all classes are among them
    as in the whole. A test split keeps its official order, which may be by class.

    Raises:
        DataError: The split has no ``n`` images.
    """
    if not 1 <= n <= len(split.labels):
        raise DataError(f"expected 1 to {len(split.labels)} images to take, got {n}")
    return _pick(split, slice(n))


def batches(split: Split, size: int, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
    """One epoch of shuffled batches, each image cropped and mirrored at random.

    The last incomplete batch is left out, as its batch norm statistics would be poor.
    """
    order = torch.randperm(len(split.labels), generator=generator)
    for index in order.split(size):
        if len(index) == size:
            yield augment(split.images[index], generator, split.mirrored), split.labels[index]


def silent(
    items: Iterable[tuple[Tensor, Tensor]], total: int, description: str
) -> Iterable[tuple[Tensor, Tensor]]:
    """Show nothing."""
    del total, description
    return items


def augment(images: Tensor, generator: torch.Generator, mirrored: bool = True) -> Tensor:
    """Crop after padding by reflection, and mirror one half or none, each image at random.

    Args:
        images: uint8 (n, 3, H, W), with H and W above the padding.
        generator: Draws the places and the mirrored ones.
        mirrored: Whether to mirror at all.
    """
    n, _, height, width = images.shape
    padded = F.pad(images.float(), [CROP_PADDING] * 4, mode="reflect").to(images.dtype)
    reach = 2 * CROP_PADDING + 1
    top, left = torch.randint(reach, (2, n), generator=generator)
    rows = top[:, None] + torch.arange(height)  # (n, H)
    columns = left[:, None] + torch.arange(width)  # (n, W)
    if mirrored:
        flipped = torch.rand(n, generator=generator) < 0.5
        columns = torch.where(flipped[:, None], columns.flip(1), columns)
    each = torch.arange(n)[:, None, None]
    cropped = padded.permute(0, 2, 3, 1)[each, rows[:, :, None], columns[:, None, :]]
    return cropped.permute(0, 3, 1, 2).contiguous()


def _data_set(name: str) -> DataSet:
    if name not in DATA_SETS:
        raise DataError(f"unknown data set {name!r}; known: {', '.join(DATA_SETS)}")
    return DATA_SETS[name]


def _pick(split: Split, index: Tensor | slice) -> Split:
    return split._replace(images=split.images[index], labels=split.labels[index])


def _tensor(array: np.ndarray) -> Tensor:
    return torch.from_numpy(np.require(array, requirements=["C", "W"]))


def _check(official: Official, validation_images: int, place: str) -> None:
    """Raise unless images and labels belong together and validation leaves some to train on."""
    classes, (n, *size) = len(official.classes), official.train[0].shape
    for images, labels in (official.train, official.test):
        if images.dtype != np.uint8 or images.shape[1:] != (3, *size[1:]) or len(size) != 3:
            raise DataError(
                f"{place}: expected uint8 images (n, 3, H, W) of one size, found {images.dtype} "
                f"{images.shape} beside {official.train[0].shape}"
            )
        if len(labels) != len(images) or not len(labels):
            raise DataError(f"{place}: found {len(images)} images with {len(labels)} labels")
        if not 0 <= labels.min() <= labels.max() < classes:
            raise DataError(
                f"{place}: found labels {labels.min()} to {labels.max()} for {classes} classes"
            )
    if n <= validation_images:
        raise DataError(
            f"{place}: expected more train images than the {validation_images} for validation, "
            f"found {n}"
        )


def _read_folder(folder: Path, data_set: DataSet) -> Official:
    """Read a folder's two files, which keep the order of the official splits.

    Raises:
        DataError: A file is missing or damaged, or they are of two data sets.
    """
    classes, train = _read_file(folder / data_set.train_file, data_set)
    test_classes, test = _read_file(folder / data_set.test_file, data_set)
    if classes != test_classes:
        raise DataError(
            f"{data_set.train_file} and {data_set.test_file} in {folder} name other classes; "
            "get both anew"
        )
    return Official(classes, train, test)


def _read_file(path: Path, data_set: DataSet) -> tuple[tuple[str, ...], Labelled]:
    try:
        with path.open("rb") as opened, np.load(opened) as file:
            return data_set.decode(file)
    except Exception as err:  # numpy, zipfile and Pillow raise all kinds on damage
        raise DataError(f"{path} cannot be read ({err}); get the data set anew") from err


def _decode_sheets(file: NpzFile) -> tuple[tuple[str, ...], Labelled]:
    """Decode images that lie below one another, many to a sheet."""
    data, offsets = file["sheets"].tobytes(), file["sheet_offsets"]
    _, height, width, channels = (int(size) for size in file["shape"])
    sheets = [
        np.asarray(Image.open(io.BytesIO(data[start:end])).convert("RGB"))
        for start, end in pairwise(offsets)
    ]
    pixels = np.concatenate([s.reshape(-1, height, width, channels) for s in sheets])
    labels = file["labels"].astype(np.int64)
    return tuple(file["classes"].tolist()), (pixels.transpose(0, 3, 1, 2), labels)


def _decode_jpegs(file: NpzFile) -> tuple[tuple[str, ...], Labelled]:
    """Decode JPEG files, each kept as its own bytes after one of two common headers."""
    headers = [file["header0"].tobytes(), file["header1"].tobytes()]
    data, kinds = file["data"].tobytes(), file["header_id"]
    places = pairwise(file["offsets"].tolist())
    files = (
        headers[kind] + data[start:end] for kind, (start, end) in zip(kinds, places, strict=True)
    )
    names = short_names(file["names"].tolist(), file["wnids"].tolist())
    return names, (decode_photos(files, len(kinds)), file["labels"].astype(np.int64))


def _decode_digits(file: NpzFile) -> tuple[tuple[str, ...], Labelled]:
    return MNIST_CLASSES, (coloured(file["images"]), file["labels"].astype(np.int64))


DATA_SETS = {
    "cifar10": DataSet("cifar10_train.npz", "cifar10_test.npz", _decode_sheets, 5_000),
    "cifar100": DataSet("cifar100_train40k_jpeg90.npz", "cifar100_test.npz", _decode_sheets, 4_000),
    "tiny_imagenet": DataSet(
        "tiny_imagenet_train100.npz", "tiny_imagenet_val.npz", _decode_jpegs, 2_000
    ),
    "mnist": DataSet("mnist_train20k.npz", "mnist_test.npz", _decode_digits, 2_000, mirrored=False),
}
