"""Real data comes with its checksum, from any of its archives, and nothing else is taken for it."""

from __future__ import annotations

import gzip
import hashlib
import http.server
import io
import pickle
import struct
import sys
import tarfile
import threading
import zipfile

import numpy as np
import pytest

from qsim import data
from qsim.data import cifar, idx, places
from qsim.errors import InputError


def test_digits_are_the_known_set():
    """scikit-learn's digits are 1,797 images of 64 pixels k/16, ten classes, with the checksum a report shows."""
    digits = data.digits()
    assert digits.x.shape == (1797, 64)
    assert set(np.unique(digits.x * 16)) == set(range(17))
    assert sorted(set(digits.y)) == list(range(10))
    assert digits.sha256 == "267f86e03ae0481efa68bbcf4dcd04133dbc88a3145b0551cb2221500a4881e0"


@pytest.fixture(autouse=True)
def _no_data_at_hand(request, monkeypatch):
    """Look for no real data but in the tests that ask for them."""
    if "qsim_data" not in request.fixturenames:
        monkeypatch.delenv("QSIM_DATA", raising=False)


# --- CIFAR-10 ------------------------------------------------------------------------------------------------------


def batch(k, count=3):
    """Return the pixels (count, 3072) and the labels of a small batch."""
    rng = np.random.default_rng(k)
    return rng.integers(0, 256, (count, 3072), np.uint8), rng.integers(0, 10, count)


def binary(k):
    """Return a batch as the binary version has it."""
    pixels, labels = batch(k)
    return np.concatenate([labels[:, None].astype(np.uint8), pixels], 1).tobytes()


def python2_pickle(pixels, labels):
    """Return a batch pickled as Python 2 and the NumPy of 2009 did: byte strings, and numpy.core.multiarray."""

    def text(value):
        return b"U" + bytes([len(value)]) + value

    def number(value):
        return b"J" + struct.pack("<i", value)

    dtype = b"cnumpy\ndtype\n" + text(b"u1") + b"K\0K\1\x87R(K\3" + text(b"|") + b"NNN" + number(-1) * 2 + b"K\0tb"
    raw = pixels.tobytes()
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\0\x85" + text(b"b") + b"\x87R"
        b"(K\1" + number(pixels.shape[0]) + number(pixels.shape[1]) + b"\x86" + dtype + b"\x89"
        b"T" + struct.pack("<i", len(raw)) + raw + b"tb"
    )
    listed = b"](" + b"".join(number(int(label)) for label in labels) + b"e"
    return (
        b"\x80\x02}("
        + text(b"data")
        + array
        + text(b"labels")
        + listed
        + text(b"batch_label")
        + text(b"a batch")
        + b"u."
    )


def files(kind):
    """Return the files of a small archive: bytes by name."""
    if kind == "binary":
        return {f"{name}.bin": binary(k) for k, name in enumerate(cifar.BATCHES)}
    if kind == "python 3":
        return {
            name: pickle.dumps(dict(zip(("data", "labels"), (p, y.tolist()), strict=True)), 2)
            for name, (p, y) in batches()
        }
    return {name: python2_pickle(*both) for name, both in batches()}


def batches():
    """Return the six small batches by name."""
    return [(name, batch(k)) for k, name in enumerate(cifar.BATCHES)]


def written(tmp_path, contents, form):
    """Return the path of an archive, of a folder, or of the folder above it."""
    if form == "tar":
        path = tmp_path / "cifar.tar.gz"
        with tarfile.open(path, "w:gz") as archive:
            for name, content in {"batches.meta": b"", "readme.html": b"text", **contents}.items():
                member = tarfile.TarInfo(f"cifar-10/{name}")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
        return path
    folder = tmp_path / ("cifar-10-batches-bin" if "test_batch.bin" in contents else "cifar-10-batches-py")
    folder.mkdir()
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return folder if form == "folder" else tmp_path


@pytest.mark.parametrize("form", ["tar", "folder", "above"])
@pytest.mark.parametrize("kind", ["binary", "python", "python 3"])
def test_both_versions_of_cifar_hold_the_same(kind, form, tmp_path):
    """Python and binary version, packed or not, give the same images, labels and checksum: red plane first, row by row."""
    found = data.cifar10(written(tmp_path, files(kind), form), complete=False)
    assert found.x_train.shape == (15, 32, 32, 3)
    pixels, labels = batch(1)
    assert (found.x_train[3, 5, 7] == pixels[0, [5 * 32 + 7, 1024 + 5 * 32 + 7, 2048 + 5 * 32 + 7]]).all()
    assert (found.y_train[3:6] == labels).all()
    assert (found.y_test == batch(5)[1]).all()
    x, y = (np.concatenate([batch(k)[j] for k in range(5)]) for j in (0, 1))
    nhwc = [p.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1).tobytes() for p in (x, batch(5)[0])]
    whole = nhwc[0] + bytes(y.tolist()) + nhwc[1] + bytes(batch(5)[1].tolist())
    assert found.sha256 == hashlib.sha256(whole).hexdigest()


def test_cifar_from_npz(tmp_path):
    """An `.npz` with the four arrays holds the same data under the same checksum, and one of another layout is refused."""
    found = data.cifar10(written(tmp_path, files("binary"), "tar"), complete=False)
    arrays = {"x_train": found.x_train, "y_train": found.y_train, "x_test": found.x_test, "y_test": found.y_test}
    np.savez_compressed(tmp_path / "c.npz", **arrays)
    assert data.cifar10(tmp_path / "c.npz").sha256 == found.sha256
    for bad, sentence in (
        ({"x_test": arrays["x_test"] / 255}, r"x_test is float64 .*; expected uint8 \(images, 32, 32, 3\)"),
        ({"x_train": arrays["x_train"].transpose(0, 3, 1, 2)}, r"x_train is uint8 \(15, 3, 32, 32\)"),
        ({"y_train": arrays["y_train"][1:]}, "15 images and 14 labels"),
        ({"y_test": arrays["y_test"] + 10}, "CIFAR-10's are 0 to 9"),
    ):
        np.savez(tmp_path / "bad.npz", **(arrays | bad))
        with pytest.raises(InputError, match=sentence):
            data.cifar10(tmp_path / "bad.npz")
    np.savez(tmp_path / "bad.npz", x_train=arrays["x_train"])
    with pytest.raises(InputError, match="lacks y_train"):
        data.cifar10(tmp_path / "bad.npz")


def promising(shape, kind="|u1"):
    """Return an empty array as a member of an `.npz`, whose header promises another shape and type."""
    header = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}".encode()
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header


@pytest.mark.parametrize(
    "content",
    [
        promising((1 << 50,)),
        promising((1 << 48, 32, 32, 3)),
        promising((1 << 200, 32, 32, 3)),
        promising((-1, 32, 32, 3)),
        promising((1 << 50,), "|O"),
        promising((1 << 20,), "<U1000000"),
        b"text",
        b"",
    ],
    ids=range(8),
)
@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_promises_of_an_npz_are_not_believed(content, compression, tmp_path):
    """A member whose header promises more than it holds, or no numbers, is refused before memory is asked for."""
    with zipfile.ZipFile(tmp_path / "c.npz", "w", compression) as archive:
        for name in ("x_train", "y_train", "x_test", "y_test"):
            archive.writestr(f"{name}.npy", content)
    with pytest.raises(InputError, match=r"c\.npz: damaged, or another file; expected an \.npz with x_train"):
        data.cifar10(tmp_path / "c.npz")


@pytest.mark.parametrize("ending", ["tar", "tar.gz"])
def test_promises_of_a_tar_archive_are_not_believed(ending, tmp_path):
    """A member of 2^50 bytes, of which the archive has none, is refused before memory is asked for."""
    member = tarfile.TarInfo("cifar-10-batches-bin/data_batch_1.bin")
    member.size = 1 << 50
    content = member.tobuf(tarfile.GNU_FORMAT) + bytes(1024)
    (tmp_path / f"c.{ending}").write_bytes(content if ending == "tar" else gzip.compress(content))
    with pytest.raises(InputError, match=rf"c\.{ending}: .*data_batch_1\.bin has 1125899906842624 bytes, more than"):
        data.cifar10(tmp_path / f"c.{ending}")


@pytest.mark.parametrize(
    ("pixels", "labels"),
    [
        (np.zeros((), np.uint8), []),
        (np.zeros(3072, np.uint8), [0]),
        (np.zeros((1, 3072), np.uint8), [1 << 80]),
        (np.zeros((1, 3072), np.uint8), [0.5]),
        (np.zeros((1, 3072), np.int8), [0]),
        (np.zeros((1, 3072), np.uint8), (0,)),
    ],
    ids=range(6),
)
def test_pickles_of_other_shapes_are_refused(pixels, labels, tmp_path):
    """Pixels of another shape or type, and labels that are no list of integers, are refused by the name of their file."""
    for name in cifar.BATCHES:
        (tmp_path / name).write_bytes(pickle.dumps({"data": pixels, "labels": labels}, 2))
    with pytest.raises(InputError, match="data_batch_1: data is no array of uint8"):
        data.cifar10(tmp_path)


def test_incomplete_cifar_is_refused(tmp_path):
    """By default six files of 10,000 images are expected, and one that lacks is named."""
    archive = written(tmp_path, files("binary"), "tar")
    with pytest.raises(InputError, match=r"data_batch_1 holds 3 images; CIFAR-10 has 10000"):
        data.cifar10(archive)
    folder = written(tmp_path, files("binary"), "folder")
    (folder / "test_batch.bin").unlink()
    with pytest.raises(InputError, match=r"test_batch\.bin: cannot be read"):
        data.cifar10(folder, complete=False)
    contents = files("python")
    del contents["data_batch_2"], contents["test_batch"]
    with pytest.raises(InputError, match="lacks data_batch_2, test_batch"):
        data.cifar10(written(tmp_path, contents, "tar"), complete=False)


class Evil:
    def __reduce__(self):
        return print, ("run",)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (pickle.dumps(Evil(), 2), r"asks for (__builtin__|builtins)\.print"),
        (pickle.dumps({"data": np.array([Evil()], object)}, 2), "asks for"),
        (pickle.dumps({"data": np.zeros((2, 3072), np.float32), "labels": [1, 2]}, 2), "no array of uint8"),
        (pickle.dumps({"data": np.zeros((2, 3072), np.uint8), "labels": [1]}, 2), "2 images and 1 labels"),
        (pickle.dumps({"data": np.zeros((1, 3072), np.uint8), "labels": [10]}, 2), "0 to 9"),
        (pickle.dumps([1, 2], 2), "damaged, or no pickled dict"),
        (python2_pickle(*batch(0))[:-3000], "damaged, or no pickled dict"),
        (b"", "damaged, or no pickled dict"),
    ],
    ids=["call", "object", "float", "labels", "label 10", "list", "cut", "empty"],
)
def test_pickles_of_anything_else_are_refused(content, sentence, tmp_path, capsys):
    """A pickle that would call something, or holds something else, is refused before it is made."""
    path = written(tmp_path, files("python") | {"data_batch_1": content}, "folder")
    with pytest.raises(InputError, match=sentence):
        data.cifar10(path, complete=False)
    assert capsys.readouterr().out == ""


def test_damaged_archives_are_refused(tmp_path):
    """An archive that is cut short, changed, or none at all is refused with what was expected."""
    path = written(tmp_path, files("binary"), "tar")
    good = path.read_bytes()
    middle = len(good) // 2
    for bad in (good[:middle], good[:middle] + bytes([good[middle] ^ 255]) + good[middle + 1 :], b"", b"text" * 1000):
        path.write_bytes(bad)
        with pytest.raises(InputError, match=r"cifar\.tar\.gz(: |, )"):
            data.cifar10(path, complete=False)
    contents = files("binary") | {"data_batch_3.bin": binary(2)[:-1]}
    with pytest.raises(InputError, match=r"data_batch_3\.bin: 9218 bytes; .* 3073 for each image"):
        data.cifar10(written(tmp_path, contents, "folder"), complete=False)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no data_batch_1"):
        data.cifar10(tmp_path / "empty")


# --- Where data are ------------------------------------------------------------------------------------------------


def test_data_are_looked_for_where_it_is_said(tmp_path, monkeypatch):
    """A path goes first; then the folder QSIM_DATA; where there is neither the sentence says what to do."""
    with pytest.raises(InputError, match=r"CIFAR-10 is not at hand: .* QSIM_DATA, or fetch = True"):
        data.cifar10()
    with pytest.raises(InputError, match=r"nowhere: does not exist; CIFAR-10 is one of cifar-10-python\.tar\.gz, "):
        data.cifar10(tmp_path / "nowhere")
    monkeypatch.setenv("QSIM_DATA", str(tmp_path / "none"))
    with pytest.raises(InputError, match="which is not a folder"):
        data.characters()
    monkeypatch.setenv("QSIM_DATA", str(tmp_path))
    with pytest.raises(InputError, match="a text is not at hand"):
        data.characters()
    (tmp_path / "tinyshakespeare.txt").write_text("to be or not to be", encoding="utf-8")
    assert data.characters().vocabulary == " benort"
    written(tmp_path, files("python"), "folder")
    assert len(data.cifar10(complete=False).x_test) == 3


@pytest.fixture
def server(tmp_path, monkeypatch):
    """Serve a folder over HTTP on this machine, and keep what is fetched in another; return the folder and its address."""
    folder = tmp_path / "served"
    folder.mkdir()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments):
            super().__init__(*arguments, directory=str(folder))

        def log_message(self, *_):
            pass

    monkeypatch.setattr("pooch.os_cache", lambda name: tmp_path / name)
    monkeypatch.setenv("NO_PROXY", "*")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as serving:
        thread = threading.Thread(target=serving.serve_forever)
        thread.start()
        try:
            yield folder, f"http://127.0.0.1:{serving.server_port}/"
        finally:
            serving.shutdown()
            thread.join()


def test_fetched_data_have_the_known_checksum(server, monkeypatch):
    """What is fetched is held against its checksum, kept, and not asked for again; another file is refused."""
    folder, address = server
    contents = {name: gzip.compress(content) for name, content in fashion().items()}
    for name, content in contents.items():
        (folder / f"{name}.gz").write_bytes(content)
        monkeypatch.setitem(idx.FILES, name, f"sha256:{hashlib.sha256(content).hexdigest()}")
    monkeypatch.setattr(idx, "HOME", address)
    first = data.fashion_mnist(fetch=True, complete=False)
    for name in contents:
        (folder / f"{name}.gz").unlink()
    assert data.fashion_mnist(fetch=True, complete=False).sha256 == first.sha256
    (folder / "other").write_bytes(b"other")
    with pytest.raises(InputError, match="is not the known file: its checksum is not sha256:00"):
        places.fetched(f"{address}other", "sha256:" + "0" * 64)
    with pytest.raises(InputError, match=r"none cannot be fetched \(HTTPError\)"):
        places.fetched(f"{address}none", "sha256:" + "0" * 64)


def test_without_network_or_pooch_it_is_said(monkeypatch, tmp_path):
    """A refused connection, and an installation without the extra, are one sentence each."""
    monkeypatch.setattr("pooch.os_cache", lambda _: tmp_path)
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setattr(cifar, "URL", "http://127.0.0.1:9/cifar")
    with pytest.raises(InputError, match=r"cifar cannot be fetched \(ConnectionError\); give the path of a copy"):
        data.cifar10(fetch=True)
    monkeypatch.setitem(sys.modules, "pooch", None)
    with pytest.raises(InputError, match=r'needs pooch: pip install "qsim-numerics\[data\]"'):
        data.cifar10(fetch=True)


# --- Fashion-MNIST -------------------------------------------------------------------------------------------------


def as_idx(array):
    """Return an array of bytes as an IDX file."""
    return b"\0\0\x08" + bytes([array.ndim]) + b"".join(struct.pack(">i", n) for n in array.shape) + array.tobytes()


def fashion(count=4):
    """Return the four files of a small Fashion-MNIST by name."""
    rng = np.random.default_rng(0)
    arrays = [rng.integers(0, 256, (count, 28, 28), np.uint8), rng.integers(0, 10, count, np.uint8)] * 2
    return {name: as_idx(array) for name, array in zip(idx.FILES, arrays, strict=True)}


@pytest.mark.parametrize("packed", [False, True])
def test_fashion_mnist_packed_or_not(packed, tmp_path):
    """The four IDX files give grey images with one channel and their labels, with or without gzip."""
    for name, content in fashion().items():
        (tmp_path / f"{name}{'.gz' * packed}").write_bytes(gzip.compress(content) if packed else content)
    found = data.fashion_mnist(tmp_path, complete=False)
    rng = np.random.default_rng(0)
    assert (found.x_train[..., 0] == rng.integers(0, 256, (4, 28, 28), np.uint8)).all()
    assert (found.y_test == rng.integers(0, 10, 4, np.uint8)).all()
    assert found.x_test.shape == (4, 28, 28, 1)
    with pytest.raises(InputError, match=r"has \(60000, 28, 28\)"):
        data.fashion_mnist(tmp_path)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, "lacks train-labels-idx1-ubyte, with or without .gz"),
        (b"", "begins with nothing"),
        (b"\0\0\x0d\1\0\0\0\0", "begins with 00000d01"),
        (as_idx(np.zeros(4, np.uint8))[:-1], r"3 bytes follow where \[4\] needs 4"),
        (as_idx(np.zeros(4, np.uint8)) + b"\0", r"5 bytes follow where \[4\] needs 4"),
        (b"\0\0\x08\x03" + b"\xff" * 12, "0 bytes follow where"),
        (as_idx(np.zeros(3, np.uint8)), r"holds images \(4, 28, 28\) and labels \(3,\)"),
        (as_idx(np.full(4, 10, np.uint8)), "has a label 10"),
        (gzip.compress(as_idx(np.zeros(4, np.uint8)), mtime=0)[:-9], "cannot be read"),  # of no time: it names the test
    ],
)
def test_damaged_idx_files_are_refused(content, sentence, tmp_path):
    """A file that is missing, of another type or length, or does not go with the others is refused by name."""
    for name, good in fashion().items():
        (tmp_path / name).write_bytes(good)
    bad = tmp_path / "train-labels-idx1-ubyte"
    bad.unlink()
    if content is not None:
        bad.write_bytes(content)
    with pytest.raises(InputError, match=sentence):
        data.fashion_mnist(tmp_path, complete=False)


# --- Characters ----------------------------------------------------------------------------------------------------


def test_idx_files_do_not_expand_without_bounds(tmp_path, monkeypatch):
    """A compressed file that expands to more than a file of the data set can hold is refused, whatever it begins with."""
    monkeypatch.setattr(idx, "LARGEST", 1 << 20)
    for count, sentence in ((1 << 20, "begins with 00000000"), ((1 << 20) + 1, r"\.gz: expands to over 1048576 bytes")):
        (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(bytes(count)))
        with pytest.raises(InputError, match=sentence):
            data.fashion_mnist(tmp_path)


def test_characters_are_sorted_and_cut_where_it_is_said(tmp_path):
    """Characters, not bytes, are numbered in the order of their code points; nine tenths come first."""
    path = tmp_path / "t.txt"
    path.write_text("bä😀ab\nbbaa", encoding="utf-8", newline="")
    text = data.characters(path)
    assert text.vocabulary == "\nabä😀"
    assert text.train.tolist() == [2, 3, 4, 1, 2, 0, 2, 2, 1]
    assert text.decode(text.validation) == "a"
    assert text.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert len(data.characters(path, train=0.5).train) == 5


@pytest.mark.parametrize(
    ("content", "train", "sentence"),
    [
        (b"ab\xff", 0.9, "byte 2 is no UTF-8"),
        (b"a", 0.9, "cannot be cut"),
        (b"", 0.9, "cannot be cut"),
        (b"ab", 1.0, "above 0"),
    ],
)
def test_what_is_no_text_is_refused(content, train, sentence, tmp_path):
    """Bytes that are no UTF-8, a text too short to be cut, and a share that leaves nothing are refused."""
    (tmp_path / "t.txt").write_bytes(content)
    with pytest.raises(InputError, match=sentence):
        data.characters(tmp_path / "t.txt", train=train)


# --- Augmentation --------------------------------------------------------------------------------------------------


def test_augmentation_crops_and_mirrors_by_its_words():
    """Each image is the crop and the mirror that its word of (seed, step) says, found by hand from the padded image."""
    x = np.random.default_rng(0).integers(1, 256, (200, 6, 5, 2), np.uint8)
    found = data.augment(x, seed=3, step=9, pad=2)
    words = np.random.Philox(key=np.array([3, 9], np.uint64)).random_raw(200)
    seen = set()
    for image, word, result in zip(x, words.tolist(), found, strict=True):
        k = word % 50
        seen.add(k)
        padded = np.pad(image, ((2, 2), (2, 2), (0, 0)))
        crop = padded[k % 5 : k % 5 + 6, k // 5 % 5 : k // 5 % 5 + 5]
        assert (result == (crop[:, ::-1] if k >= 25 else crop)).all()
    assert len(seen) > 45  # 200 words hit all but one or two of the 50 outcomes
    assert (data.augment(x, 3, 9, pad=2)[:7] == data.augment(x[:7], 3, 9, pad=2)).all()
    assert (data.augment(x, 3, 10, pad=2) != found).any()
    assert (data.augment(x, 3, 9, pad=0, flip=False) == x).all()


def test_shuffling_is_a_permutation_of_its_seed_and_epoch():
    """Every epoch has all samples once, in an order of its own that comes again when asked again."""
    first = data.shuffled(1000, seed=1, epoch=0)
    assert (np.sort(first) == np.arange(1000)).all()
    assert (first == data.shuffled(1000, seed=1, epoch=0)).all()
    assert (first != data.shuffled(1000, seed=1, epoch=1)).any()
    with pytest.raises(InputError, match="64 bits"):
        data.shuffled(3, seed=-1, epoch=0)
    with pytest.raises(InputError, match="count = -1 must be at least 0"):
        data.shuffled(-1, seed=0, epoch=0)
    with pytest.raises(InputError, match=r"count = 2\.5 must be an integer"):
        data.shuffled(2.5, seed=0, epoch=0)


def test_order_and_augmentation_share_no_words():
    """Of one seed and step the order takes words whose counter ends in 1, augmentation those that end in 0."""
    words = [
        np.random.Philox(key=np.array([3, 9], np.uint64), counter=np.array([0, 0, 0, use], np.uint64)).random_raw(200)
        for use in range(2)
    ]
    assert (data.shuffled(200, 3, 9) == np.argsort(words[1])).all()
    assert (data.shuffled(200, 3, 9) != np.argsort(words[0])).any()
    assert not set(words[0].tolist()) & set(words[1].tolist())


def test_standardized_pixels_have_mean_0_and_deviation_1():
    """By the means and deviations of the training images every channel is centred and scaled, a constant one only centred."""
    x = np.random.default_rng(0).integers(0, 256, (10, 4, 4, 3), np.uint8)
    x[..., 2] = 7
    found = data.standardize(x, x, np.float64)
    np.testing.assert_allclose(found.mean((0, 1, 2)), 0, atol=1e-14)
    np.testing.assert_allclose(found.std((0, 1, 2)), [1, 1, 0], rtol=1e-14)
    assert data.standardize(x, x).dtype == np.float32
    for bad, found in ((x / 255, "float64"), (x.tolist(), "list")):
        with pytest.raises(InputError, match=f"x is {found}; standardize takes pixels as arrays of uint8"):
            data.standardize(bad, x)
        with pytest.raises(InputError, match=f"like is {found}"):
            data.standardize(x, bad)
    for like in (x[..., :2], x[:0]):
        with pytest.raises(InputError, match="the same channels"):
            data.standardize(x, like)


# --- The real ones -------------------------------------------------------------------------------------------------


def test_real_cifar_subset(qsim_data):
    """The stored part of CIFAR-10 has 500 training images a class and 1,000 for test."""
    found = data.cifar10(qsim_data / "cifar10-5k1k.npz")
    assert found.x_train.shape == (5000, 32, 32, 3)
    assert (np.bincount(found.y_train) == 500).all()
    assert len(found.x_test) == 1000
    assert len(found.sha256) == 64


def test_real_text(qsim_data):
    """Tiny Shakespeare has 65 characters, of which 1,003,854 are for training."""
    text = data.characters(qsim_data / "tinyshakespeare.txt")
    assert len(text.vocabulary) == 65
    assert (len(text.train), len(text.validation)) == (1_003_854, 111_540)
    assert text.sha256 == "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"
    assert text.decode(text.train[:13]) == "First Citizen"
