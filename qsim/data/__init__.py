"""Loaders of real data, with checksums: a study records the SHA-256 of its data."""

from qsim.data.augment import augment, shuffled, standardize
from qsim.data.cifar import cifar10
from qsim.data.dataset import Dataset, Images, Text
from qsim.data.digits import digits
from qsim.data.idx import fashion_mnist
from qsim.data.tables import labelled
from qsim.data.text import characters

__all__ = [
    "Dataset",
    "Images",
    "Text",
    "augment",
    "characters",
    "cifar10",
    "digits",
    "fashion_mnist",
    "labelled",
    "shuffled",
    "standardize",
]
