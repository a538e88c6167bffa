"""Train the same network here and in PyTorch, from the same parameters on the same batches, and print both curves.

    python benchmarks/curves.py wideresnet|llama [--steps N] [--batch B] [--only qsim|torch] [-o FILE]

The first is WRN-16-1 on the CIFAR-10 subset, SGD with Nesterov's momentum; the second a decoder on the characters of
tiny-shakespeare, AdamW; both unrounded, in float32. The data are looked for in the folder `QSIM_DATA`.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional

import qsim
from qsim import data, optim
from qsim.nn import Llama, WideResNet
from twins import images, twin

SEED = 0
EVERY = 20
"""A curve has a point each time the test is twentieth of the steps farther."""


class Wide:
    """WRN-16-1 on images: error of a test set, in percent."""

    unit, steps, batch, rate, decay = "% of the test images wrong", 1500, 64, 0.1, 5e-4

    def __init__(self, steps: int, batch: int) -> None:
        self.total, self.size = steps, batch
        self.set = data.cifar10()
        self.model = WideResNet(16, 1)
        self.params = self.model.init(np.random.default_rng(SEED), np.float32)
        self.test = data.standardize(self.set.x_test, self.set.x_train)

    def at(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the batch of a step: the images of an epoch in a new order, cropped and mirrored."""
        count = len(self.set.x_train)
        each = count // self.size
        order = data.shuffled(count, SEED, step // each)
        chosen = order[step % each * self.size :][: self.size]
        x = data.standardize(self.set.x_train[chosen], self.set.x_train)
        return data.augment(x, SEED, step), self.set.y_train[chosen]

    def learning_rate(self) -> Callable[[int], float]:
        """Return the learning rate by step."""
        return optim.cosine(self.rate, self.total, warm=self.total // 20)

    def ours(self) -> Iterator[tuple[float, Callable[[], float]]]:
        """Yield the loss of each step, and how to test."""
        params = self.params
        optimizer = optim.sgd(self.learning_rate(), momentum=0.9, nesterov=True, weight_decay=self.decay)
        state = optimizer.init(params)
        step = qsim.value_and_grad(self.model.loss)
        running: dict[str, tuple[np.ndarray, np.ndarray]] = {}

        def test() -> float:
            wrong = 0
            for first in range(0, len(self.test), 250):
                some = slice(first, first + 250)
                scores = self.model.logits(params, self.test[some], running)
                wrong += int((scores.argmax(1) != self.set.y_test[some]).sum())
            return 100 * wrong / len(self.test)

        for number in range(self.total):
            with qsim.numerics() as context:
                loss, grads = step(params, self.at(number))
            for name, seen in context.observed.items():
                mean, variance = (part[0] for part in seen)
                before = running.get(name, (np.zeros_like(mean), np.ones_like(variance)))
                running[name] = (0.9 * before[0] + 0.1 * mean, 0.9 * before[1] + 0.1 * variance)
            updates, state = optimizer.update(grads, state, params)
            params = optim.apply_updates(params, updates)
            yield loss, test

    def theirs(self) -> Iterator[tuple[float, Callable[[], float]]]:
        """Yield the same of PyTorch."""
        model = twin(self.model, self.params)
        rate = self.learning_rate()
        # Their weight decay is added to the gradient; ours goes beside it. So it is done by hand, as ours does.
        optimizer = torch.optim.SGD(model.parameters(), lr=1.0, momentum=0.9, nesterov=True)
        tested = images(self.test)

        def test() -> float:
            model.eval()
            with torch.no_grad():
                wrong = sum(
                    int(
                        (
                            model(tested[first : first + 250]).argmax(1).numpy() != self.set.y_test[first : first + 250]
                        ).sum()
                    )
                    for first in range(0, len(tested), 250)
                )
            model.train()
            return 100 * wrong / len(self.test)

        for number in range(self.total):
            x, labels = self.at(number)
            optimizer.zero_grad()
            loss = functional.cross_entropy(model(images(x)), torch.from_numpy(labels))
            loss.backward()
            decayed(optimizer, rate(number), self.decay)
            yield float(loss.detach()), test


class Text:
    """A decoder on characters: nats a character of the validation part."""

    unit, steps, batch, rate, decay = "nats a character of the validation text", 1500, 24, 3e-3, 0.1
    length = 128

    def __init__(self, steps: int, batch: int) -> None:
        self.total, self.size = steps, batch
        self.text = data.characters()
        self.model = Llama(len(self.text.vocabulary), 128, 3, 4)
        self.params = self.model.init(np.random.default_rng(SEED), np.float32)
        validation = self.text.validation
        starts = np.arange(64) * ((len(validation) - self.length - 1) // 63)
        self.held = cut(validation, starts, self.length)

    def at(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the batch of a step: pieces of the text that begin anywhere."""
        rng = np.random.Generator(np.random.Philox(key=np.array([SEED, step], np.uint64)))
        return cut(self.text.train, rng.integers(0, len(self.text.train) - self.length - 1, self.size), self.length)

    def learning_rate(self) -> Callable[[int], float]:
        """Return the learning rate by step."""
        return optim.cosine(self.rate, self.total, end=self.rate / 10, warm=self.total // 20)

    def ours(self) -> Iterator[tuple[float, Callable[[], float]]]:
        """Yield the loss of each step, and how to test."""
        params = self.params
        optimizer = optim.adamw(self.learning_rate(), b2=0.99, eps=1e-8, weight_decay=self.decay)
        state = optimizer.init(params)
        step = qsim.value_and_grad(self.model.loss)

        def test() -> float:
            codes, following = self.held
            losses = [
                self.model.loss(params, (codes[i : i + 16], following[i : i + 16])) for i in range(0, len(codes), 16)
            ]
            return float(np.mean(losses))

        for number in range(self.total):
            loss, grads = step(params, self.at(number))
            updates, state = optimizer.update(grads, state, params)
            params = optim.apply_updates(params, updates)
            yield loss, test

    def theirs(self) -> Iterator[tuple[float, Callable[[], float]]]:
        """Yield the same of PyTorch."""
        model = twin(self.model, self.params)
        rate = self.learning_rate()
        optimizer = torch.optim.AdamW(model.parameters(), lr=1.0, betas=(0.9, 0.99), eps=1e-8, weight_decay=self.decay)

        def loss_of(codes: np.ndarray, following: np.ndarray) -> torch.Tensor:
            scores = model(torch.from_numpy(codes).long())
            return functional.cross_entropy(scores.flatten(0, 1), torch.from_numpy(following).long().flatten())

        def test() -> float:
            with torch.no_grad():
                codes, following = self.held
                return float(
                    np.mean(
                        [float(loss_of(codes[i : i + 16], following[i : i + 16])) for i in range(0, len(codes), 16)]
                    )
                )

        for number in range(self.total):
            optimizer.zero_grad()
            loss = loss_of(*self.at(number))
            loss.backward()
            for group in optimizer.param_groups:
                group["lr"] = rate(number)
            optimizer.step()
            yield float(loss.detach()), test


def cut(text: np.ndarray, starts: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Return pieces of a text, and what follows each character."""
    pieces = text[starts[:, None] + np.arange(length + 1)]
    return pieces[:, :-1], pieces[:, 1:]


def decayed(optimizer: torch.optim.Optimizer, rate: float, decay: float) -> None:
    """Take a step of `optimizer` at this learning rate, and decay the weights beside it."""
    with torch.no_grad():
        for group in optimizer.param_groups:
            group["lr"] = rate
            for parameter in group["params"]:
                parameter.mul_(1 - rate * decay)
    optimizer.step()


def train(run: Iterator[tuple[float, Callable[[], float]]], steps: int) -> list[tuple[int, float, float]]:
    """Return points of a curve: step, mean loss since the last point, test."""
    points, losses = [], []
    every = max(1, steps // EVERY)
    for number, (loss, test) in enumerate(run, 1):
        losses.append(loss)
        if number % every == 0 or number == steps:
            points.append((number, float(np.mean(losses)), test()))
            print(f"  {number:6d}  loss {points[-1][1]:.4f}  test {points[-1][2]:.4f}", flush=True)
            losses = []
    return points


def main(arguments: list[str]) -> int:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=["wideresnet", "llama"])
    parser.add_argument("--steps", type=int)
    parser.add_argument("--batch", type=int)
    parser.add_argument("--only", choices=["qsim", "torch"])
    parser.add_argument("-o", "--output", type=Path)
    options = parser.parse_args(arguments)
    kind = {"wideresnet": Wide, "llama": Text}[options.task]
    task = kind(options.steps or kind.steps, options.batch or kind.batch)
    source = task.set if isinstance(task, Wide) else task.text
    print(
        f"{options.task}: {task.total} steps of {task.size}; {source.name}, SHA-256 {source.sha256}; test: {task.unit}"
    )
    result: dict[str, Any] = {"task": options.task, "steps": task.total, "batch": task.size, "sha256": source.sha256}
    for name, run in (("qsim", task.ours), ("torch", task.theirs)):
        if options.only in (None, name):
            print(name)
            before = time.perf_counter()
            result[name] = train(run(), task.total)
            result[f"{name}_seconds"] = time.perf_counter() - before
            print(f"  {result[f'{name}_seconds']:.0f} s")
    if options.output:
        options.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
