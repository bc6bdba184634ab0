import gzip
import hashlib
import io
import re
import struct
import tarfile
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from PIL import Image

from xpi_ray.errors import DataError
from xpi_ray.training import archives
from xpi_ray.training.archives import (
    SOURCES,
    Archive,
    coloured,
    decode_photos,
    read_official,
    short_names,
)
from xpi_ray.training.data import DATA_SETS

WNIDS = ["n03", "n01", "n02"]
WORDS = {"n00": "entity", "n01": "crane, lifting device", "n02": "crane, bird", "n03": "cat, tabby"}


def cifar100(images=5, names="apple\naquarium_fish\nbaby\n", cut=0):
    """Files of CIFAR-100; labels of groups lie before those of classes."""
    rng = np.random.default_rng(images)
    records = rng.integers(0, 256, (images, 2 + 3072), np.uint8)
    records[:, 1] %= 3
    data = records.tobytes()
    return {
        "cifar-100-binary/test.bin": data,  # before train, as the archive's order may be any
        "cifar-100-binary/train.bin": data[: len(data) - cut] * 2,
        "cifar-100-binary/coarse_label_names.txt": b"fruit\n",
        "cifar-100-binary/fine_label_names.txt": names.encode(),
    }


def jpeg(seed, size=(64, 64), mode="RGB"):
    """Bytes of a photo of noise."""
    shape = (size[1], size[0], 3) if mode == "RGB" else (size[1], size[0])
    noise = np.random.default_rng(seed).integers(0, 256, shape, np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, "JPEG")
    return buffer.getvalue()


def tiny_imagenet():
    """Files of Tiny ImageNet: three classes of two train images, four of validation, one grey."""
    photos = {
        f"train/{wnid}/images/{wnid}_{i}.JPEG": jpeg(10 * number + i)
        for number, wnid in enumerate(WNIDS)
        for i in range(2)
    }
    photos |= {f"val/images/val_{i}.JPEG": jpeg(100 + i) for i in range(3)}
    photos["val/images/val_3.JPEG"] = jpeg(103, mode="L")
    labels = ["n02", "n03", "n01", "n03"]
    rows = [f"val_{i}.JPEG\t{wnid}\t0\t32\t44\t62\n" for i, wnid in enumerate(labels)]
    texts = {
        "wnids.txt": "\n".join(WNIDS),
        "words.txt": "".join(f"{wnid}\t{names}\n" for wnid, names in WORDS.items()),
        "val/val_annotations.txt": "".join(rows),
    }
    files = photos | {name: text.encode() for name, text in texts.items()}
    return {f"tiny-imagenet-200/{name}": content for name, content in files.items()}


def idx(array):
    """Bytes of an array as an IDX file."""
    return struct.pack(f">4B{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


def mnist():
    """The four arrays of MNIST: three images to train on, two to test."""
    rng = np.random.default_rng(0)
    return [
        rng.integers(0, 256, (3, 28, 28), np.uint8),
        np.array([7, 0, 9], np.uint8),
        rng.integers(0, 256, (2, 28, 28), np.uint8),
        np.array([1, 4], np.uint8),
    ]


def tarred(files):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def zipped(files):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


@pytest.fixture
def published(tmp_path, monkeypatch):
    """Returns a function after which a data set's archives are the given bytes, and lie here."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(archives, "TINY_IMAGENET_TRAIN_IMAGES", 2)
    cache = tmp_path / ".cache" / "xpi_ray"
    cache.mkdir(parents=True)

    def publish(name, *contents):
        source, declared = SOURCES[name], []
        for archive, content in zip(source.archives, contents, strict=True):
            (cache / archive.url.rpartition("/")[2]).write_bytes(content)
            digest = hashlib.sha256(content).hexdigest()
            declared.append(Archive(archive.url, len(content), digest))
        monkeypatch.setitem(SOURCES, name, source._replace(archives=tuple(declared)))
        return cache

    return publish


def test_cifar100_has_its_fine_labels_and_names(published):
    """The second byte of a record is the class, and the planes follow it."""
    files = cifar100()
    published("cifar100", tarred(files))
    official = read_official("cifar100")
    assert official.classes == ("apple", "aquarium_fish", "baby")
    record = files["cifar-100-binary/test.bin"][3074:6148]
    images, labels = official.test
    assert images.shape == (5, 3, 32, 32)
    assert images.dtype == np.uint8
    assert images[1].tobytes() == record[2:]
    assert labels[1] == record[1]
    assert official.train[0].shape == (10, 3, 32, 32)
    assert (official.train[0][:5] == images).all()


@pytest.mark.parametrize("name", list(cifar100()))
def test_cifar100_without_a_file_is_refused(published, name):
    """The message names the archive and the file that is missing; group names are not needed."""
    files = cifar100()
    del files[name]
    published("cifar100", tarred(files))
    if "coarse" in name:
        assert read_official("cifar100").classes
        return
    with pytest.raises(DataError, match=rf"cifar-100-binary\.tar\.gz.*{re.escape(name)}"):
        read_official("cifar100")


def test_a_folder_in_place_of_a_file_is_refused(published):
    """A member of the right name that is no file counts as missing."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name in cifar100():
            info = tarfile.TarInfo(name)
            info.type = tarfile.DIRTYPE
            tar.addfile(info)
    published("cifar100", buffer.getvalue())
    with pytest.raises(DataError, match=r"train\.bin"):
        read_official("cifar100")


def test_records_that_are_cut_off_are_refused(published):
    """A file that is not a whole number of records is not read up to the last whole one."""
    published("cifar100", tarred(cifar100(cut=1)))
    with pytest.raises(DataError, match="cifar100"):
        read_official("cifar100")


def test_tiny_imagenet_has_its_photos_labels_and_names(published):
    """Train is interleaved by class in the order of wnids.txt; test follows the annotations."""
    files = tiny_imagenet()
    published("tiny_imagenet", zipped(files))
    official = read_official("tiny_imagenet")
    assert official.classes == ("cat", "crane (n01)", "crane (n02)")
    images, labels = official.train
    assert images.shape == (6, 3, 64, 64)
    assert labels.tolist() == [0, 1, 2, 0, 1, 2]
    for place, (number, i) in enumerate([(0, 0), (1, 0), (2, 0), (0, 1), (1, 1), (2, 1)]):
        expected = np.asarray(Image.open(io.BytesIO(jpeg(10 * number + i))))
        assert (images[place].transpose(1, 2, 0) == expected).all()
    images, labels = official.test
    assert labels.tolist() == [2, 0, 1, 0]
    grey = np.asarray(Image.open(io.BytesIO(jpeg(103, mode="L"))))
    assert (images[3] == grey).all()


@pytest.mark.parametrize(
    "name", [name for name in tiny_imagenet() if "_0" in name or "txt" in name]
)
def test_tiny_imagenet_without_a_file_is_refused(published, name):
    """The message names the archive and the file that is missing."""
    files = tiny_imagenet()
    del files[name]
    published("tiny_imagenet", zipped(files))
    with pytest.raises(DataError, match=rf"tiny-imagenet-200\.zip.*{re.escape(name)}"):
        read_official("tiny_imagenet")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("val/images/val_1.JPEG", jpeg(1, (64, 63))),
        ("val/images/val_1.JPEG", jpeg(1, (1, 1))),
        ("val/images/val_1.JPEG", jpeg(1)[:1000]),
        ("val/images/val_1.JPEG", b"not a photo"),
        ("val/val_annotations.txt", b"val_0.JPEG\tn99\t0\t0\t1\t1\n"),
        ("val/val_annotations.txt", b"val_0.JPEG\n"),
        ("words.txt", b"n01\tcrane\n"),
        ("wnids.txt", b"\xff"),
    ],
)
def test_tiny_imagenet_with_a_damaged_file_is_refused(published, name, content):
    """Photos of another size or cut off, unknown classes and texts that are none."""
    published("tiny_imagenet", zipped(tiny_imagenet() | {f"tiny-imagenet-200/{name}": content}))
    with pytest.raises(DataError, match="tiny_imagenet"):
        read_official("tiny_imagenet")


def test_photos_are_as_many_as_said():
    """Neither one file fewer nor one more goes unnoticed."""
    for count in (1, 3):
        with pytest.raises(ValueError, match="zip"):
            decode_photos([jpeg(0), jpeg(1)], count)


@given(st.lists(st.text("ab, ", min_size=1), min_size=1, max_size=6))
def test_short_names_never_repeat(synonyms):
    """Whatever classes share, no two names are equal, and each begins with its first synonym."""
    wnids = [f"n{i}" for i in range(len(synonyms))]
    names = short_names(synonyms, wnids)
    assert len(set(names)) == len(synonyms)
    for name, words in zip(names, synonyms, strict=True):
        assert name.startswith(words.split(", ")[0])


def test_mnist_is_grey_in_three_channels(published):
    """Four IDX files give train and test; every channel is the file's image."""
    contents = mnist()
    published("mnist", *(gzip.compress(idx(array)) for array in contents))
    official = read_official("mnist")
    assert official.classes == tuple("0123456789")
    for (images, labels), (grey, digits) in zip(
        (official.train, official.test), (contents[:2], contents[2:]), strict=True
    ):
        assert images.shape == (len(grey), 3, 28, 28)
        assert (images == grey[:, None]).all()
        assert labels.tolist() == digits.tolist()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        gzip.compress(b""),
        gzip.compress(idx(np.zeros(3, np.uint8))),
        gzip.compress(idx(np.zeros((3, 28, 28), np.uint8))[:-1]),
        gzip.compress(idx(np.zeros((3, 28, 28), np.uint8)) + b"\0"),
        gzip.compress(struct.pack(">4B3I", 0, 0, 8, 3, 1 << 31, 1 << 31, 1 << 31)),
        gzip.compress(idx(np.zeros((3, 28, 28), np.uint8)))[:-4],
    ],
    ids=["nothing", "empty", "labels", "too short", "too long", "giant", "cut off"],
)
def test_mnist_with_a_damaged_file_is_refused(published, content):
    """Sizes that the file declares must be those of its content."""
    rest = [gzip.compress(idx(array)) for array in mnist()[1:]]
    published("mnist", content, *rest)
    with pytest.raises(DataError, match=r"train-images-idx3-ubyte\.gz"):
        read_official("mnist")


@given(arrays(np.uint8, array_shapes(min_dims=3, max_dims=3, max_side=5)))
def test_colouring_repeats(grey):
    """Each of three channels is the grey image."""
    images = coloured(grey)
    assert images.shape == (len(grey), 3, *grey.shape[1:])
    assert (images == grey[:, None]).all()


OFFICIAL = {
    "cifar100": lambda: [tarred(cifar100())],
    "tiny_imagenet": lambda: [zipped(tiny_imagenet())],
    "mnist": lambda: [gzip.compress(idx(array)) for array in mnist()],
}


@pytest.mark.parametrize("name", list(OFFICIAL))
def test_a_changed_archive_is_not_opened(published, name):
    """One bit of the last archive is enough; the message names that file."""
    contents = OFFICIAL[name]()
    cache = published(name, *contents)
    path = cache / SOURCES[name].archives[-1].url.rpartition("/")[2]
    path.write_bytes(contents[-1][:-1] + bytes([contents[-1][-1] ^ 1]))
    with pytest.raises(DataError, match=rf"{path.name} is damaged: expected sha256 .*; delete it"):
        read_official(name)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
@pytest.mark.parametrize("name", list(OFFICIAL))
def test_a_cut_off_archive_is_refused(published, name, share):
    """Even where its checksum agrees, half an archive is an error of data, not a traceback."""
    first, *rest = OFFICIAL[name]()
    published(name, first[: int(share * len(first))], *rest)
    with pytest.raises(DataError, match=name):
        read_official(name)


def test_every_archive_is_pinned():
    """Each data set has archives, of distinct names in the cache, with a size and a checksum."""
    assert set(SOURCES) == set(DATA_SETS)
    listed = [archive for source in SOURCES.values() for archive in source.archives]
    assert len({archive.url.rpartition("/")[2] for archive in listed}) == len(listed)
    for archive in listed:
        assert archive.url.startswith("http")
        assert 0 < archive.size_bytes < 1 << 28
        assert re.fullmatch("[0-9a-f]{64}", archive.sha256)
