"""The result of a loader: arrays, and the SHA-256 of their contents."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Dataset", "Images", "Text", "images"]


@dataclass(frozen=True, slots=True)
class Dataset:
    """Hold labelled samples: x (samples, features) float64, y (samples,) int64, and their description."""

    name: str
    x: NDArray[np.float64]
    y: NDArray[np.int64]
    sha256: str
    """Of the pixels and labels as int64, little-endian, C order, pixels first."""
    source: str


@dataclass(frozen=True, slots=True)
class Images:
    """Hold labelled images: x (images, height, width, channels) uint8, y (images,) int64, for training and for test."""

    name: str
    x_train: NDArray[np.uint8]
    y_train: NDArray[np.int64]
    x_test: NDArray[np.uint8]
    y_test: NDArray[np.int64]
    classes: tuple[str, ...]
    sha256: str
    """Of the pixels in C order and the labels as bytes, x_train, y_train, x_test, y_test: the same from every archive."""
    source: str


@dataclass(frozen=True, slots=True)
class Text:
    """Hold a text as indices of its characters in the sorted vocabulary: a first part for training, the rest for validation."""

    name: str
    vocabulary: str
    train: NDArray[np.int32]
    validation: NDArray[np.int32]
    sha256: str
    """Of the bytes of the file."""
    source: str

    def decode(self, indices: NDArray[np.integer]) -> str:
        """Return the characters of `indices`."""
        return "".join(self.vocabulary[i] for i in indices)


def images(
    name: str,
    train: tuple[NDArray[np.uint8], NDArray[np.uint8]],
    test: tuple[NDArray[np.uint8], NDArray[np.uint8]],
    classes: tuple[str, ...],
    source: str,
) -> Images:
    """Return the images and labels (uint8) of both parts, with their checksum."""
    arrays = [np.ascontiguousarray(array, np.uint8) for array in (*train, *test)]
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(array.data if array.size else b"")
    x_train, y_train, x_test, y_test = arrays
    return Images(
        name,
        x_train,
        y_train.astype(np.int64),
        x_test,
        y_test.astype(np.int64),
        classes,
        digest.hexdigest(),
        source,
    )
