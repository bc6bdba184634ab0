import hashlib
import io
import tarfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from xpi_ray.errors import DataError
from xpi_ray.training import data
from xpi_ray.training.archives import CIFAR10_CLASSES, SOURCES, Archive
from xpi_ray.training.data import (
    CROP_PADDING,
    DATA_SETS,
    Split,
    augment,
    batches,
    data_folder,
    load,
    take,
)

RECORDS = 4  # in each file of the archive that tests make
MEMBERS = [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]


def records(seed):
    """Return labels, planes and the bytes of a few records, as the official file lays them out."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 10, RECORDS, np.uint8)
    planes = rng.integers(0, 256, (RECORDS, 3, 32, 32), np.uint8)
    data = b"".join(bytes([label]) + p.tobytes() for label, p in zip(labels, planes, strict=True))
    return labels, planes, data


def archive(members=MEMBERS):
    """Return the bytes of an archive with the official layout."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for seed, name in enumerate(members):
            content = records(seed)[2]
            info = tarfile.TarInfo(f"cifar-10-batches-bin/{name}.bin")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


@pytest.fixture
def fetched_from(monkeypatch):
    """Returns a function after which CIFAR-10 comes from another URL, as other bytes."""

    def declare(url, content):
        archive = Archive(url, len(content), hashlib.sha256(content).hexdigest())
        source = SOURCES["cifar10"]._replace(archives=(archive,))
        monkeypatch.setitem(SOURCES, "cifar10", source)

    return declare


@pytest.fixture
def served(nowhere, monkeypatch, fetched_from):
    """Returns a function that serves bytes over HTTP in the official archive's place."""
    servers = []

    def serve(content, declared=None, status=b"HTTP/1.0 200 OK"):
        asked = []

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                asked.append(self.path)
                self.wfile.write(status + b"\r\n\r\n" + content)

            def log_message(self, format, *args):  # noqa: A002
                """Say nothing."""

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        servers.append((server, thread))
        url = f"http://127.0.0.1:{server.server_address[1]}/cifar-10-binary.tar.gz"
        fetched_from(url, content if declared is None else declared)
        data_set = DATA_SETS["cifar10"]._replace(validation_images=5)
        monkeypatch.setitem(DATA_SETS, "cifar10", data_set)
        return asked

    yield serve
    for server, thread in servers:
        server.shutdown()
        thread.join()
        server.server_close()


def test_the_official_archive_is_fetched_once(served):
    """Without data at hand the archive comes by HTTP, each pixel in its place, and is kept."""
    asked = served(archive())
    splits = load("cifar10")
    assert len(splits.train.labels) == 5 * RECORDS - 5
    assert len(splits.validation.labels) == 5
    labels, planes, _ = records(5)
    assert (splits.test.images.numpy() == planes).all()
    assert splits.test.labels.tolist() == labels.tolist()
    again = load("cifar10")
    assert torch.equal(again.train.images, splits.train.images)
    assert len(asked) == 1


def test_train_and_validation_are_the_official_training_files(served):
    """Together they hold each record of the five files once."""
    served(archive())
    splits = load("cifar10")
    parts = [splits.train, splits.validation]
    found = sorted(
        (int(label), image.numpy().tobytes())
        for part in parts
        for label, image in zip(part.labels, part.images, strict=True)
    )
    expected = sorted(
        (int(label), plane.tobytes())
        for seed in range(5)
        for label, plane in zip(*records(seed)[:2], strict=True)
    )
    assert found == expected


def test_another_archive_is_refused(served, nowhere):
    """A file of another checksum is not read; the message says which file to delete."""
    served(b"not the archive", declared=archive())
    with pytest.raises(DataError, match=r"damaged: expected sha256 .*; delete it"):
        load("cifar10")


def test_no_more_is_read_than_the_archive_has(served, nowhere):
    """A server that sends without end costs one byte more than the archive."""
    genuine = archive()
    served(genuine + bytes(1 << 20), declared=genuine)
    with pytest.raises(DataError, match="damaged"):
        load("cifar10")
    (kept,) = (nowhere / "home" / ".cache" / "xpi_ray").iterdir()
    assert kept.stat().st_size == len(genuine) + 1


@pytest.mark.parametrize("status", [b"HTTP/1.0 404 Not Found", b"SMTP ready"])
def test_a_failed_download_says_what_to_do(served, status):
    """A refusal, and an answer that is no HTTP, name the URL and the place for the file."""
    served(b"", status=status)
    with pytest.raises(
        DataError, match=r"(?s)127.0.0.1.* cannot be fetched .* put it at .*\.tar\.gz"
    ):
        load("cifar10")


def test_an_unreachable_server_says_what_to_do(nowhere, fetched_from):
    """Nothing listens: the message names the variable, and nothing is left behind."""
    fetched_from("http://127.0.0.1:1/x", b"")
    with pytest.raises(DataError, match=r"\$XPI_DATA_DIR"):
        load("cifar10")
    assert not list((nowhere / "home" / ".cache" / "xpi_ray").iterdir())


def test_an_archive_without_a_file_is_refused(served):
    """The message names the file that is missing."""
    served(archive(MEMBERS[:-1]))
    with pytest.raises(DataError, match="test_batch"):
        load("cifar10")


def test_an_unknown_data_set_is_refused():
    """The message names what came and what is known."""
    for use in (load, data_folder):
        with pytest.raises(
            DataError, match="'svhn'; known: cifar10, cifar100, tiny_imagenet, mnist"
        ):
            use("svhn")


def test_the_real_data_set_has_its_official_sizes(cifar10):
    """45,000 + 5,000 + 10,000 images of ten classes; test has 1,000 of each."""
    parts = cifar10.train, cifar10.validation, cifar10.test
    assert [tuple(part.images.shape) for part in parts] == [
        (n, 3, 32, 32) for n in (45_000, 5_000, 10_000)
    ]
    assert cifar10.classes == CIFAR10_CLASSES
    assert cifar10.test.labels.bincount().tolist() == [1_000] * 10
    official = torch.cat([cifar10.train.labels, cifar10.validation.labels])
    assert official.bincount().tolist() == [5_000] * 10


def test_the_real_split_is_fixed_by_its_seed(cifar10):
    """Validation is what it always was, so that thresholds chosen on it stay comparable."""
    with np.load(data.data_folder() / "cifar10_train.npz") as file:
        official = file["labels"]
    order = np.random.default_rng(20_240).permutation(50_000)
    assert (cifar10.validation.labels.numpy() == official[order[:5_000]]).all()
    assert (cifar10.train.labels.numpy() == official[order[5_000:]]).all()
    assert order[:4].tolist() == [36_989, 11_032, 34_567, 37_484]


def real(name):
    """A real data set, where it lies at hand; nothing is fetched."""
    if data_folder(name) is None:
        pytest.skip(
            f"no {DATA_SETS[name].train_file} in $XPI_DATA_DIR or ../shared/data; set "
            "XPI_DATA_DIR to a folder that holds it"
        )
    return load(name)


@pytest.mark.parametrize(
    ("name", "sizes", "shape", "known"),
    [
        ("cifar100", (36_000, 4_000, 10_000), (3, 32, 32), {0: "apple", 99: "worm"}),
        ("tiny_imagenet", (18_000, 2_000, 10_000), (3, 64, 64), {0: "Egyptian cat", 4: "lemon"}),
        ("mnist", (18_000, 2_000, 10_000), (3, 28, 28), {3: "3"}),
    ],
)
def test_the_other_real_data_sets_have_the_sizes_of_the_folder(name, sizes, shape, known):
    """Their train splits are parts of the official ones; test is whole, every class in it."""
    splits = real(name)
    parts = splits.train, splits.validation, splits.test
    assert [tuple(part.images.shape) for part in parts] == [(n, *shape) for n in sizes]
    classes = len(set(splits.classes))
    assert classes == len(splits.classes) == {"cifar100": 100, "mnist": 10}.get(name, 200)
    assert {label: splits.classes[label] for label in known} == known
    each = splits.test.labels.bincount()
    assert len(each) == classes
    assert name == "mnist" or set(each.tolist()) == {10_000 // classes}
    assert {part.mirrored for part in parts} == {name != "mnist"}
    assert len(take(splits.train, 5_000).labels.unique()) == classes


def pixels_of(image):
    """The set of an image's pixels."""
    return {tuple(pixel) for pixel in image.flatten(1).T.tolist()}


@settings(max_examples=25)
@given(
    n=st.integers(1, 4),
    height=st.integers(CROP_PADDING + 1, 9),
    width=st.integers(CROP_PADDING + 1, 9),
    seed=st.integers(0, 1000),
)
def test_augmenting_invents_no_pixel(n, height, width, seed):
    """Shape and type stay, and each pixel of an augmented image is one of its original."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (n, 3, height, width), generator=generator, dtype=torch.uint8)
    augmented = augment(images, generator)
    assert (augmented.shape, augmented.dtype) == (images.shape, images.dtype)
    for before, after in zip(images, augmented, strict=True):
        assert pixels_of(after) <= pixels_of(before)


def test_augmented_images_are_crops_of_the_padded_one():
    """Each is a window of the reflected image, mirrored or not, and all windows occur."""
    image = torch.arange(3 * 8 * 8, dtype=torch.uint8).reshape(1, 3, 8, 8)
    padded = np.pad(image[0].numpy(), [(0, 0), (4, 4), (4, 4)], mode="reflect")
    windows, straight = {}, set()
    for top in range(9):
        for left in range(9):
            window = padded[:, top : top + 8, left : left + 8]
            windows[window.tobytes()] = (top, left, False)
            straight.add(window.tobytes())
            windows[window[:, :, ::-1].tobytes()] = (top, left, True)
    generator = torch.Generator().manual_seed(0)
    found = augment(image.expand(3_000, -1, -1, -1), generator).numpy()
    places = {windows[each.tobytes()] for each in found}
    assert places == set(windows.values())
    found = augment(image.expand(1_000, -1, -1, -1), generator, mirrored=False).numpy()
    assert {each.tobytes() for each in found} == straight


def test_batches_are_full_shuffled_and_labelled():
    """An epoch shows each image at most once, with its own label, and leaves the odd ones out."""
    values = torch.arange(23, dtype=torch.uint8)
    split = Split(values.view(-1, 1, 1, 1).expand(-1, 3, 6, 6), values.long())
    seen = []
    for images, labels in batches(split, 5, torch.Generator().manual_seed(0)):
        assert images.shape == (5, 3, 6, 6)
        assert torch.equal(images[:, 0, 0, 0].long(), labels)
        seen += labels.tolist()
    assert len(seen) == len(set(seen)) == 20
    assert seen != sorted(seen)


@pytest.mark.parametrize("mirrored", [True, False])
def test_batches_mirror_only_what_may_be(mirrored):
    """Columns that grow from left to right shrink in some images, or in none."""
    ramp = torch.arange(20, dtype=torch.uint8).expand(64, 3, 20, 20)
    split = Split(ramp, torch.zeros(64, dtype=torch.int64), mirrored)
    ((images, _),) = batches(split, 64, torch.Generator().manual_seed(0))
    middle = images[:, 0, 10].int()
    assert (middle[:, 9] > middle[:, 10]).any() == mirrored


@given(n=st.integers(1, 9), mirrored=st.booleans())
def test_taking_keeps_the_first(n, mirrored):
    """Images and labels stay together and in order, and a digit stays a digit."""
    values = torch.arange(9, dtype=torch.uint8)
    split = Split(values.view(-1, 1, 1, 1).expand(-1, 3, 6, 6), values.long(), mirrored)
    some = take(split, n)
    assert some.labels.tolist() == list(range(n))
    assert torch.equal(some.images[:, 0, 0, 0].long(), some.labels)
    assert some.mirrored == mirrored


@pytest.mark.parametrize("n", [-1, 0, 5])
def test_no_more_are_taken_than_there_are(n):
    """Asked for none or too many, the message says how many there are."""
    split = Split(torch.zeros(4, 3, 2, 2, dtype=torch.uint8), torch.zeros(4, dtype=torch.int64))
    with pytest.raises(DataError, match=f"1 to 4 .*got {n}"):
        take(split, n)
