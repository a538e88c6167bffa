"""Fashion-MNIST, four files in the IDX format of MNIST, compressed or not.

Source: Xiao, Rasul, Vollgraf, "Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine Learning Algorithms",
arXiv 1708.07747, 2017; the format: Y. LeCun, C. Cortes, C. Burges, "The MNIST database of handwritten digits".
"""

from __future__ import annotations

import gzip
import io
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qsim.data.dataset import Images, images
from qsim.data.places import LARGEST, fetched, locate, missing
from qsim.errors import InputError

__all__ = ["fashion_mnist"]

HOME = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"
FILES = {
    "train-images-idx3-ubyte": "md5:8d4fb7e6c68d591d4c3dfef9ec88bf0d",
    "train-labels-idx1-ubyte": "md5:25c81989df183df01b3e8a0aad5dffbe",
    "t10k-images-idx3-ubyte": "md5:bef4ecab320f06d8554ea6380940ec79",
    "t10k-labels-idx1-ubyte": "md5:bb300cfdad3c16e7a12a480ee83cd310",
}
NAMES = ("fashion-mnist", "FashionMNIST")
CLASSES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
COUNTS = {"train": 60_000, "t10k": 10_000}


def fashion_mnist(path: str | Path | None = None, *, complete: bool = True, fetch: bool = False) -> Images:
    """Return Fashion-MNIST: 28x28 grey images, (images, 28, 28, 1), ten classes.

    `path`: the folder of the four files, with or without ".gz"; without one, "fashion-mnist" in the folder `QSIM_DATA`; with
    `fetch` and neither, the files from their home (needs the extra `data`). `complete` refuses files that do not hold 60,000
    and 10,000 images.
    Raise `InputError` for a file that is missing, damaged, or something else.
    """
    where = locate("Fashion-MNIST", path, NAMES)
    if where is None and not fetch:
        raise missing("Fashion-MNIST", NAMES, fetch=True)
    parts = []
    for part, count in COUNTS.items():
        x, y = (_read(where, name) for name in FILES if name.startswith(part))
        if x.ndim != 3 or x.shape[1:] != (28, 28) or y.ndim != 1 or len(x) != len(y) or (complete and len(x) != count):
            raise InputError(
                f"{where}: {part} holds images {x.shape} and labels {y.shape}; "
                f"Fashion-MNIST has ({count}, 28, 28) and ({count},)"
            )
        if y.size and y.max() >= len(CLASSES):
            raise InputError(f"{where}: {part} has a label {y.max()}; Fashion-MNIST's are 0 to 9")
        parts.append((x[..., None], y))
    return images("fashion-mnist", parts[0], parts[1], CLASSES, "Fashion-MNIST, Xiao, Rasul, Vollgraf, 2017")


def _read(where: Path | None, name: str) -> NDArray[np.uint8]:
    """Return the array of one of the files."""
    if where is None:
        path = fetched(f"{HOME}{name}.gz", FILES[name])
    else:
        candidates = [where / f"{name}{ending}" for ending in (".gz", "")]
        path = next((candidate for candidate in candidates if candidate.is_file()), candidates[1])
    try:
        data = path.read_bytes()
        if data[:2] == b"\x1f\x8b":  # whatever it is called
            with gzip.open(io.BytesIO(data)) as expanded:
                data = expanded.read(LARGEST + 1)
    except FileNotFoundError:
        raise InputError(f"{where}: lacks {name}, with or without .gz; Fashion-MNIST is {', '.join(FILES)}") from None
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path}: cannot be read ({error})") from None
    if len(data) > LARGEST:
        raise InputError(f"{path}: expands to over {LARGEST} bytes, more than a file of Fashion-MNIST has")
    return parse_idx(str(path), data)


def parse_idx(name: str, data: bytes) -> NDArray[Any]:
    """Return the array of unsigned bytes that IDX data hold: 0, 0, 8, the number of axes, their lengths big-endian, the bytes.

    Raise `InputError` for data that are none, or of another length than they say.
    """
    axes = data[3] if len(data) > 3 and data[:3] == b"\0\0\x08" else 0
    if not axes or len(data) < 4 + 4 * axes:
        raise InputError(f"{name}: begins with {data[:4].hex() or 'nothing'}; an IDX file of bytes begins with 000008")
    shape = [int.from_bytes(data[4 + 4 * k : 8 + 4 * k], "big") for k in range(axes)]
    expected = int(np.prod(shape, dtype=object))
    if len(data) - 4 - 4 * axes != expected:
        raise InputError(f"{name}: {len(data) - 4 - 4 * axes} bytes follow where {shape} needs {expected}")
    return np.frombuffer(data, np.uint8, offset=4 + 4 * axes).reshape(shape)
