"""The data sets' official archives: fetched once, checked, and read without unpickling anything.

    URL ─► ~/.cache/xpi_ray ─► sha256 ─► reader ─► Official(classes, train, test) ─► data.load

No archive is opened before its checksum agrees, so the sizes that it declares are the known ones.
"""

import gzip
import hashlib
import io
import tarfile
import urllib.request
from collections.abc import Callable, Iterable, Sequence
from http.client import HTTPException
from pathlib import Path
from typing import NamedTuple
from zipfile import ZipFile

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from xpi_ray.errors import DataError

CIFAR10_CLASSES = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip
MNIST_CLASSES = tuple("0123456789")
CIFAR_PIXELS = 3 * 32 * 32  # the red, green and blue planes of a record, after its labels
TINY_IMAGENET_SIDE = 64  # pixels
TINY_IMAGENET_TRAIN_IMAGES = 500  # of each class
TINY_IMAGENET_ROOT = "tiny-imagenet-200"  # the folder inside the archive

Labelled = tuple[NDArray[np.uint8], NDArray[np.int64]]
"""Images (n, 3, H, W) and their labels (n,)."""


class Official(NamedTuple):
    """A data set in its official splits and order."""

    classes: tuple[str, ...]
    train: Labelled
    test: Labelled


class Archive(NamedTuple):
    """One file as its authors publish it."""

    url: str
    size_bytes: int
    sha256: str


class Source(NamedTuple):
    """The archives of one data set, and what reads them."""

    archives: tuple[Archive, ...]
    read: Callable[[Sequence[Path]], Official]


def read_official(name: str) -> Official:
    """Read a data set from its official archives, which are fetched once.

    Args:
        name: One of ``SOURCES``.

    Raises:
        DataError: An archive is not to be had, or damaged.
    """
    source = SOURCES[name]
    paths = [_fetch(name, archive) for archive in source.archives]
    try:
        return source.read(paths)
    except Exception as err:  # tarfile, zipfile, gzip and Pillow raise all kinds on damage
        files = ", ".join(map(str, paths))
        raise DataError(f"{files}: not what {name} is published as ({err})") from err


def _fetch(name: str, archive: Archive) -> Path:
    """Return the archive's path; the checksum is that of the whole file."""
    path = Path.home() / ".cache" / "xpi_ray" / archive.url.rpartition("/")[2]
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        try:
            with urllib.request.urlopen(archive.url, timeout=60) as answer:
                data = answer.read(archive.size_bytes + 1)
        except (OSError, HTTPException) as err:
            raise DataError(
                f"{name} is in no folder of data ($XPI_DATA_DIR), and {archive.url} cannot be "
                f"fetched ({err}); fetch it elsewhere and put it at {path}"
            ) from err
        part.write_bytes(data)
        part.rename(path)
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != archive.sha256:
        raise DataError(
            f"{path} is damaged: expected sha256 {archive.sha256}, found {found}; "
            "delete it and try again"
        )
    return path


def _read_cifar10(paths: Sequence[Path]) -> Official:
    files = [f"data_batch_{i}.bin" for i in range(1, 6)] + ["test_batch.bin"]
    *train, test = _members(paths[0], "cifar-10-batches-bin", files)
    return Official(CIFAR10_CLASSES, _decode_cifar(b"".join(train), 1), _decode_cifar(test, 1))


def _read_cifar100(paths: Sequence[Path]) -> Official:
    """Read CIFAR-100; a record has the label of its group of classes before that of its class."""
    files = ["train.bin", "test.bin", "fine_label_names.txt"]
    train, test, names = _members(paths[0], "cifar-100-binary", files)
    classes = tuple(names.decode().split())
    return Official(classes, _decode_cifar(train, 2), _decode_cifar(test, 2))


def _members(path: Path, folder: str, files: Sequence[str]) -> list[bytes]:
    """Read files of a compressed tar archive in one pass, as going back would inflate it anew."""
    names = [f"{folder}/{file}" for file in files]
    found = {}
    with tarfile.open(path, "r|gz") as archive:
        for member in archive:
            if member.name in names and (opened := archive.extractfile(member)):
                found[member.name] = opened.read()
    missing = [name for name in names if name not in found]
    if missing:
        raise ValueError(f"it has no file {', '.join(missing)}")
    return [found[name] for name in names]


def _decode_cifar(data: bytes, label_bytes: int) -> Labelled:
    records = np.frombuffer(data, np.uint8).reshape(-1, label_bytes + CIFAR_PIXELS)
    labels = records[:, label_bytes - 1].astype(np.int64)
    return records[:, label_bytes:].reshape(-1, 3, 32, 32), labels


def _read_tiny_imagenet(paths: Sequence[Path]) -> Official:
    """Read Tiny ImageNet, its train images interleaved by class.

    The official validation split is the test split here: the labels of the official test split
    are not public.
    """
    with ZipFile(paths[0]) as archive:
        wnids = _lines(archive, "wnids.txt")
        words = dict(line.split("\t", 1) for line in _lines(archive, "words.txt"))
        rows = [line.split("\t") for line in _lines(archive, "val/val_annotations.txt")]
        train = [
            (f"train/{wnid}/images/{wnid}_{i}.JPEG", wnid)
            for i in range(TINY_IMAGENET_TRAIN_IMAGES)
            for wnid in wnids
        ]
        test = [(f"val/images/{row[0]}", row[1]) for row in rows]
        classes = short_names([words[wnid] for wnid in wnids], wnids)
        return Official(
            classes, _read_photos(archive, train, wnids), _read_photos(archive, test, wnids)
        )


def _lines(archive: ZipFile, file: str) -> list[str]:
    return archive.read(f"{TINY_IMAGENET_ROOT}/{file}").decode().splitlines()


def _read_photos(
    archive: ZipFile, files: Sequence[tuple[str, str]], wnids: Sequence[str]
) -> Labelled:
    label_of = {wnid: label for label, wnid in enumerate(wnids)}
    labels = np.array([label_of[wnid] for _, wnid in files], np.int64)
    contents = (archive.read(f"{TINY_IMAGENET_ROOT}/{file}") for file, _ in files)
    return decode_photos(contents, len(files)), labels


def decode_photos(files: Iterable[bytes], count: int) -> NDArray[np.uint8]:
    """Decode JPEG files of 64×64 pixels, some of them grey, to images (count, 3, 64, 64).

    Raises:
        ValueError: There are not ``count`` files, or one has another size.
        OSError: One is not a JPEG file, or cut off.
    """
    side = TINY_IMAGENET_SIDE
    images = np.empty((count, 3, side, side), np.uint8)
    for image, file in zip(images, files, strict=True):
        photo = Image.open(io.BytesIO(file), formats=["JPEG"])
        if photo.size != (side, side):
            raise ValueError(f"expected a photo of {side} by {side} pixels, found {photo.size}")
        image[:] = np.asarray(photo.convert("RGB")).transpose(2, 0, 1)
    return images


def short_names(synonyms: Sequence[str], wnids: Sequence[str]) -> tuple[str, ...]:
    """The first of each class's synonyms, with the WordNet id after it where classes share it."""
    first = [names.split(", ")[0] for names in synonyms]
    return tuple(
        name if first.count(name) == 1 else f"{name} ({wnid})"
        for name, wnid in zip(first, wnids, strict=True)
    )


def _read_mnist(paths: Sequence[Path]) -> Official:
    train, train_labels, test, test_labels = (
        _decode_idx(path, axes) for path, axes in zip(paths, (3, 1, 3, 1), strict=True)
    )
    return Official(
        MNIST_CLASSES,
        (coloured(train), train_labels.astype(np.int64)),
        (coloured(test), test_labels.astype(np.int64)),
    )


def _decode_idx(path: Path, axes: int) -> NDArray[np.uint8]:
    """Decode bytes in the IDX format: a magic number, the sizes of the axes, the values."""
    data = gzip.decompress(path.read_bytes())
    magic = bytes([0, 0, 8, axes])
    if data[:4] != magic:
        raise ValueError(f"expected {path.name} to begin with {magic!r}, found {data[:4]!r}")
    shape = np.frombuffer(data, ">u4", axes, offset=4).tolist()
    return np.frombuffer(data, np.uint8, offset=4 + 4 * axes).reshape(shape)


def coloured(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Repeat grey images (n, H, W) as red, green and blue, (n, 3, H, W)."""
    return np.repeat(images[:, None], 3, axis=1)


_TORONTO = "https://www.cs.toronto.edu/~kriz"
_MNIST = "https://ossci-datasets.s3.amazonaws.com/mnist"

# Sizes and checksums of CIFAR and MNIST are those that TensorFlow Datasets publishes as well.
SOURCES = {
    "cifar10": Source(
        (
            Archive(
                f"{_TORONTO}/cifar-10-binary.tar.gz",
                170_052_171,
                "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
            ),
        ),
        _read_cifar10,
    ),
    "cifar100": Source(
        (
            Archive(
                f"{_TORONTO}/cifar-100-binary.tar.gz",
                168_513_733,
                "58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec",
            ),
        ),
        _read_cifar100,
    ),
    "tiny_imagenet": Source(
        (
            Archive(
                "http://cs231n.stanford.edu/tiny-imagenet-200.zip",
                248_100_043,
                "6198c8ae015e2b3e007c7841da39ec069199b9aa3bfa943a462022fe5e43c821",
            ),
        ),
        _read_tiny_imagenet,
    ),
    "mnist": Source(
        (
            Archive(
                f"{_MNIST}/train-images-idx3-ubyte.gz",
                9_912_422,
                "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
            ),
            Archive(
                f"{_MNIST}/train-labels-idx1-ubyte.gz",
                28_881,
                "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
            ),
            Archive(
                f"{_MNIST}/t10k-images-idx3-ubyte.gz",
                1_648_877,
                "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
            ),
            Archive(
                f"{_MNIST}/t10k-labels-idx1-ubyte.gz",
                4_542,
                "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
            ),
        ),
        _read_mnist,
    ),
}
