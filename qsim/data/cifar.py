"""CIFAR-10, from either official archive, as it comes or unpacked, or from an `.npz`.

Source: A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", technical report, University of Toronto, 2009.
"""

from __future__ import annotations

import io
import pickle
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qsim.data.dataset import Images, images
from qsim.data.places import LARGEST, fetched, locate, missing
from qsim.errors import InputError
from qsim.files import read_npz

__all__ = ["cifar10"]

URL = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
SHA256 = "sha256:c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"
NAMES = (
    "cifar-10-python.tar.gz", "cifar-10-batches-py", "cifar-10-binary.tar.gz", "cifar-10-batches-bin", "cifar10.npz",
    "cifar10-5k1k.npz",
)  # fmt: skip
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
BATCHES = (*(f"data_batch_{k}" for k in range(1, 6)), "test_batch")
PIXELS = 3 * 32 * 32
BATCH = 10_000

Part = tuple[NDArray[np.uint8], NDArray[np.uint8]]


def cifar10(path: str | Path | None = None, *, complete: bool = True, fetch: bool = False) -> Images:
    """Return CIFAR-10: 32x32 RGB images, height, width and channels in that order, ten classes.

    `path`: an official archive (python or binary version), the folder that is in it, or an `.npz` with x_train, y_train, x_test
    and y_test. Without one, whichever of these stands in the folder `QSIM_DATA` by its usual name; with `fetch` and neither,
    the binary archive from its home, kept in the user's cache (needs the extra `data`). `complete` refuses an archive or folder
    whose six files do not hold 10,000 images each; an `.npz` may be a part. Pickles of the python version are read without
    running code: only arrays, strings, numbers, lists and dicts are made.
    Raise `InputError` for a file that is missing, damaged, or something else.
    """
    where = locate("CIFAR-10", path, NAMES)
    if where is None:
        if not fetch:
            raise missing("CIFAR-10", NAMES, fetch=True)
        where = fetched(URL, SHA256)
    if where.suffix == ".npz":
        train, test = _from_npz(where)
    else:
        parts = _folder(where) if where.is_dir() else _archive(where)
        for name, (x, _) in parts.items():
            if complete and len(x) != BATCH:
                raise InputError(f"{where}: {name} holds {len(x)} images; CIFAR-10 has {BATCH} in each of its files")
        train = _joined([parts[name] for name in BATCHES[:5]])
        test = parts["test_batch"]
    source = "CIFAR-10, A. Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009"
    return images("cifar10", train, test, CLASSES, source)


def _joined(parts: list[Part]) -> Part:
    return np.concatenate([x for x, _ in parts]), np.concatenate([y for _, y in parts])


def _folder(where: Path) -> dict[str, Part]:
    """Return the parts of an unpacked archive: the folder itself, or the one above it."""
    for inner in (where, where / "cifar-10-batches-py", where / "cifar-10-batches-bin"):
        for ending, read in READERS.items():
            if (inner / f"{BATCHES[0]}{ending}").is_file():
                return {name: _read(inner / f"{name}{ending}", read) for name in BATCHES}
    raise InputError(f"{where}: holds no data_batch_1 or data_batch_1.bin, as a folder of CIFAR-10 does")


def _read(path: Path, read: Callable[[str, bytes], Part]) -> Part:
    try:
        return read(str(path), path.read_bytes())
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); a folder of CIFAR-10 has all six") from None


def _archive(where: Path) -> dict[str, Part]:
    """Return the parts of a tar archive, in whatever folder they stand."""
    wanted = {f"{name}{ending}": (name, read) for name in BATCHES for ending, read in READERS.items()}
    parts: dict[str, Part] = {}
    try:
        with tarfile.open(where) as archive:
            for member in archive:
                found = wanted.get(Path(member.name).name)
                if found and member.isfile():
                    if member.size > LARGEST:  # memory for all of it would be asked for
                        raise InputError(
                            f"{where}: {member.name} has {member.size} bytes, more than a file of CIFAR-10 has"
                        )
                    file = archive.extractfile(member)
                    assert file is not None
                    name, read = found
                    parts[name] = read(f"{where}, {member.name}", file.read())
            # The compressed file's own checksum stands behind the end of the archive, where tarfile stops.
            while archive.fileobj is not None and archive.fileobj.read(1 << 20):
                pass
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        raise InputError(
            f"{where}: damaged, or no archive of CIFAR-10 ({error}); expected cifar-10-python.tar.gz or -binary.tar.gz"
        ) from None
    lacking = [name for name in BATCHES if name not in parts]
    if lacking:
        raise InputError(f"{where}: lacks {', '.join(lacking)}, which an archive of CIFAR-10 has")
    return parts


def _of_binary(name: str, data: bytes) -> Part:
    """Return the images of a binary file: rows of a label and 3,072 pixels, the red ones first."""
    if not data or len(data) % (1 + PIXELS):
        raise InputError(f"{name}: {len(data)} bytes; a binary file of CIFAR-10 has {1 + PIXELS} for each image")
    rows = np.frombuffer(data, np.uint8).reshape(-1, 1 + PIXELS)
    return _checked(name, rows[:, 1:], rows[:, 0])


def _of_pickle(name: str, data: bytes) -> Part:
    """Return the images of a python file, a pickled dict of `data` and `labels`."""
    try:
        batch = PlainUnpickler(io.BytesIO(data), encoding="bytes").load()
        fields = {key.decode() if isinstance(key, bytes) else key: value for key, value in batch.items()}
        pixels, labels = fields["data"], fields["labels"]
    except InputError:
        raise
    except Exception:  # noqa: BLE001 - a damaged pickle raises nearly anything
        raise InputError(f"{name}: damaged, or no pickled dict with data and labels, as CIFAR-10's are") from None
    fits = (
        isinstance(pixels, np.ndarray) and pixels.dtype == np.uint8 and pixels.ndim == 2 and pixels.shape[1] == PIXELS
    )
    numbers = isinstance(labels, list) and all(isinstance(label, int) and label.bit_length() < 64 for label in labels)
    if not (fits and numbers):
        raise InputError(f"{name}: data is no array of uint8 (images, {PIXELS}) with a list of labels")
    return _checked(name, pixels, np.array(labels, np.int64))


def _checked(name: str, rows: NDArray[np.uint8], labels: NDArray[Any]) -> Part:
    """Return images as height, width, channels, and their labels; refuse files that do not go together."""
    if len(rows) != len(labels) or not len(rows):
        raise InputError(f"{name}: {len(rows)} images and {len(labels)} labels; there is one for each")
    if labels.min() < 0 or labels.max() >= len(CLASSES):
        raise InputError(f"{name}: labels from {labels.min()} to {labels.max()}; CIFAR-10's are 0 to 9")
    return rows.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), labels.astype(np.uint8)


READERS: dict[str, Callable[[str, bytes], Part]] = {"": _of_pickle, ".bin": _of_binary}


def _latin1(text: str, encoding: str) -> bytes:
    """Return bytes that Python 3 pickled as text for Python 2."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(encoding)
    return text.encode(encoding)


class PlainUnpickler(pickle.Unpickler):
    """Unpickle arrays and values of Python's literals; refuse to look up anything else, let alone call it."""

    def find_class(self, module: str, name: str) -> Any:
        """Return the function that makes arrays, wherever NumPy of that time had it."""
        if (module, name) in (("numpy", "ndarray"), ("numpy", "dtype")):
            return getattr(np, name)
        if (module, name) in (("numpy.core.multiarray", "_reconstruct"), ("numpy._core.multiarray", "_reconstruct")):
            return _reconstruct
        if (module, name) == ("_codecs", "encode"):
            return _latin1
        raise InputError(
            f"a pickle asks for {module}.{name}; a file of CIFAR-10 holds arrays, numbers and strings alone"
        )


def _reconstruct(kind: type, shape: tuple[int, ...], code: bytes) -> NDArray[Any]:  # noqa: ARG001 - NumPy's own signature
    """Return the empty array whose state comes next in a pickle."""
    return np.empty(0, np.uint8)


def _from_npz(where: Path) -> tuple[Part, Part]:
    """Return both parts of an `.npz`."""
    arrays, _ = read_npz(where, "an .npz with x_train, y_train, x_test and y_test", texts=True)
    parts = []
    for part in ("train", "test"):
        try:
            x, y = arrays[f"x_{part}"], arrays[f"y_{part}"]
        except KeyError as error:
            raise InputError(f"{where}: lacks {error.args[0]}; expected x_train, y_train, x_test and y_test") from None
        if x.dtype != np.uint8 or x.shape[1:] != (32, 32, 3) or y.ndim != 1 or y.dtype.kind not in "iu":
            raise InputError(
                f"{where}: x_{part} is {x.dtype} {x.shape} and y_{part} {y.dtype} {y.shape}; "
                "expected uint8 (images, 32, 32, 3) and integers (images,)"
            )
        rows = x.transpose(0, 3, 1, 2).reshape(len(x), PIXELS)
        parts.append(_checked(f"{where}, {part}", rows, y))
    return parts[0], parts[1]
