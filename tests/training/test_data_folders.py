import io

import numpy as np
import pytest
import torch
from PIL import Image

from xpi_ray.errors import DataError
from xpi_ray.training.data import DATA_SETS, data_folder, load


@pytest.fixture
def few_for_validation(monkeypatch):
    """Two images for the validation of each data set, so that a few make a data set."""
    for name, data_set in DATA_SETS.items():
        monkeypatch.setitem(DATA_SETS, name, data_set._replace(validation_images=2))


def sheets(path, pixels, labels, heights, classes="abcdefghij"):
    """Write images (n, h, w, 3) as lossless sheets of the given numbers of images."""
    files, start = [], 0
    for count in heights:
        part = pixels[start : start + count]
        buffer = io.BytesIO()
        Image.fromarray(part.reshape(-1, part.shape[2], 3)).save(buffer, "PNG")
        files.append(buffer.getvalue())
        start += count
    np.savez(
        path,
        sheets=np.frombuffer(b"".join(files), np.uint8),
        sheet_offsets=np.cumsum([0, *map(len, files)]),
        shape=np.array(pixels.shape),
        labels=labels,
        classes=np.array(list(classes)),
    )


@pytest.mark.parametrize(
    ("name", "train_file"),
    [("cifar10", "cifar10_train.npz"), ("cifar100", "cifar100_train40k_jpeg90.npz")],
)
@pytest.mark.usefixtures("few_for_validation")
def test_a_folder_with_the_data_is_read_first(nowhere, monkeypatch, name, train_file):
    """$XPI_DATA_DIR comes before any download; rows, columns and colours stay in place."""
    rng = np.random.default_rng(0)
    folder = nowhere / "data"
    folder.mkdir()
    pixels = rng.integers(0, 256, (7, 3, 2, 3), np.uint8)
    sheets(folder / train_file, pixels, np.arange(7), [4, 3])
    sheets(folder / f"{name}_test.npz", pixels[::-1], np.arange(7), [7])
    monkeypatch.setenv("XPI_DATA_DIR", str(folder))
    splits = load(name)
    assert splits.classes == tuple("abcdefghij")
    assert splits.test.images.dtype == torch.uint8
    assert (splits.test.images.numpy() == pixels[::-1].transpose(0, 3, 1, 2)).all()
    for part in (splits.train, splits.validation):
        for image, label in zip(part.images, part.labels, strict=True):
            assert (image.numpy() == pixels[int(label)].transpose(2, 0, 1)).all()
    assert sorted([*splits.train.labels.tolist(), *splits.validation.labels.tolist()]) == [
        *range(7)
    ]


@pytest.mark.parametrize("content", [None, b"", b"PK\x03\x04 cut off"])
def test_a_damaged_folder_is_named(nowhere, monkeypatch, content):
    """A file of the folder that is missing or cut off is named, not a traceback."""
    np_file = nowhere / "cifar10_train.npz"
    sheets(np_file, np.zeros((1, 2, 2, 3), np.uint8), np.zeros(1), [1])
    if content is not None:
        (nowhere / "cifar10_test.npz").write_bytes(content)
    monkeypatch.setenv("XPI_DATA_DIR", str(nowhere))
    with pytest.raises(DataError, match=r"cifar10_test\.npz"):
        load("cifar10")


def test_a_file_of_damaged_numbers_is_named(nowhere, monkeypatch):
    """Whatever a decoder raises on a file whose bytes were changed, the message names the file."""
    sheets(nowhere / "cifar10_train.npz", np.zeros((8, 2, 2, 3), np.uint8), np.zeros(8), [8])
    whole = (nowhere / "cifar10_train.npz").read_bytes()
    monkeypatch.setenv("XPI_DATA_DIR", str(nowhere))
    rng = np.random.default_rng(0)
    for _ in range(100):
        damaged = bytearray(whole)
        damaged[rng.integers(len(whole))] ^= 1 << rng.integers(8)
        (nowhere / "cifar10_train.npz").write_bytes(damaged)
        with pytest.raises(DataError, match=r"cifar10_t(rain|est)\.npz"):  # there is no test file
            load("cifar10")


def jpegs(path, photos, labels, names="cat, tabby|dog"):
    """Write photos as JPEG files that share their first bytes; they are all of one encoder."""
    files = []
    for photo in photos:
        buffer = io.BytesIO()
        Image.fromarray(photo).save(buffer, "JPEG")
        files.append(buffer.getvalue())
    header = files[0][:100]
    assert all(file.startswith(header) for file in files)
    np.savez(
        path,
        header0=np.frombuffer(b"none has this one", np.uint8),
        header1=np.frombuffer(header, np.uint8),
        header_id=np.ones(len(files), np.uint8),
        data=np.frombuffer(b"".join(file[100:] for file in files), np.uint8),
        offsets=np.cumsum([0, *(len(file) - 100 for file in files)]),
        labels=np.array(labels, np.uint8),
        names=np.array(names.split("|")),
        wnids=np.array(["n1", "n2"]),
    )
    return [np.asarray(Image.open(io.BytesIO(file))).transpose(2, 0, 1) for file in files]


@pytest.mark.usefixtures("few_for_validation")
def test_tiny_imagenet_is_read_from_a_folder(nowhere, monkeypatch):
    """Each photo decodes to itself, with its label, and classes carry their first synonym."""
    photos = np.random.default_rng(0).integers(0, 256, (5, 64, 64, 3), np.uint8)
    train = jpegs(nowhere / "tiny_imagenet_train100.npz", photos, [0, 1, 0, 1, 1])
    test = jpegs(nowhere / "tiny_imagenet_val.npz", photos[3:], [1, 0])
    monkeypatch.setenv("XPI_DATA_DIR", str(nowhere))
    splits = load("tiny_imagenet")
    assert splits.classes == ("cat", "dog")
    assert (splits.test.images.numpy() == np.stack(test)).all()
    assert splits.test.labels.tolist() == [1, 0]
    found = torch.cat([splits.train.images, splits.validation.images]).numpy()
    assert {image.tobytes() for image in found} == {image.tobytes() for image in train}
    assert splits.train.mirrored


def digits(path, n):
    """Write grey images of one value each, which is also their label."""
    labels = np.arange(n, dtype=np.uint8)
    images = np.broadcast_to(labels[:, None, None], (n, 28, 28))
    np.savez(path, images=images, labels=labels)


@pytest.mark.usefixtures("few_for_validation")
def test_mnist_is_read_from_a_folder_and_not_mirrored(nowhere, monkeypatch):
    """Grey becomes three channels, and no split of it may be mirrored."""
    digits(nowhere / "mnist_train20k.npz", 10)
    digits(nowhere / "mnist_test.npz", 3)
    monkeypatch.setenv("XPI_DATA_DIR", str(nowhere))
    splits = load("mnist")
    assert splits.classes == tuple("0123456789")
    assert len(splits.train.labels) == 8
    for part in (splits.train, splits.validation, splits.test):
        assert not part.mirrored
        expected = part.labels.view(-1, 1, 1, 1).expand(-1, 3, 28, 28)
        assert torch.equal(part.images, expected.to(torch.uint8))


def test_each_data_set_is_looked_for_by_its_own_file(nowhere, monkeypatch):
    """A folder of one data set is none of another; $XPI_DATA_DIR is not passed over in silence."""
    digits(nowhere / "mnist_train20k.npz", 3)
    monkeypatch.setenv("XPI_DATA_DIR", str(nowhere))
    assert data_folder("mnist") == nowhere
    for name in ("cifar10", "cifar100", "tiny_imagenet"):
        assert data_folder(name) is None
        with pytest.raises(DataError, match=rf"\$XPI_DATA_DIR is .*has no {name}_train"):
            load(name)


@pytest.mark.parametrize("variable", [None, ""])
def test_the_shared_folder_is_looked_at_without_the_variable(nowhere, monkeypatch, variable):
    """An unset or empty $XPI_DATA_DIR leaves ../shared/data, seen from the working folder."""
    if variable is not None:
        monkeypatch.setenv("XPI_DATA_DIR", variable)
    (nowhere / "checkout").mkdir()
    monkeypatch.chdir(nowhere / "checkout")
    assert data_folder("mnist") is None
    shared = nowhere / "shared" / "data"
    shared.mkdir(parents=True)
    digits(shared / "mnist_train20k.npz", 3)
    assert data_folder("mnist").samefile(shared)
    monkeypatch.setenv("XPI_DATA_DIR", str(nowhere))
    assert data_folder("mnist") is None


SQUARE = np.zeros((4, 2, 2, 3), np.uint8)


@pytest.mark.parametrize(
    ("train", "test", "message"),
    [
        ((SQUARE, [0, 1, 2, 9]), (SQUARE[:, :1], [0] * 4), "of one size"),
        ((SQUARE, [0, 1, 2]), (SQUARE, [0] * 4), "4 images with 3 labels"),
        ((SQUARE, [0, 1, 2, 10]), (SQUARE, [0] * 4), "labels 0 to 10 for 10 classes"),
        ((SQUARE, [0] * 4), (SQUARE, [-1, 0, 0, 0]), "labels -1 to 0 for 10 classes"),
        ((SQUARE[:2], [0, 1]), (SQUARE, [0] * 4), "more train images than the 2"),
        ((SQUARE, [0] * 4), (SQUARE, [0] * 4, "abc"), "name other classes"),
    ],
)
@pytest.mark.usefixtures("few_for_validation")
def test_files_that_do_not_fit_together_are_refused(nowhere, monkeypatch, train, test, message):
    """Sizes, counts, labels and names are compared before anything is trained on them."""
    for part, (pixels, labels, *classes) in {"train": train, "test": test}.items():
        path = nowhere / f"cifar10_{part}.npz"
        sheets(path, pixels, np.array(labels), [len(pixels)], *classes)
    monkeypatch.setenv("XPI_DATA_DIR", str(nowhere))
    with pytest.raises(DataError, match=message):
        load("cifar10")
