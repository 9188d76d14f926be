"""Batches decoded on demand, for sets that do not fit in memory.

Each of Grain's worker processes (or threads, if there are no workers) makes whole
batches. The step alone determines a batch and its random crops, whatever the number
of workers, so a stopped run resumes exactly, even in the middle of an epoch.
"""

import contextlib
import dataclasses
import functools
import json
import logging
import math
import multiprocessing
import os
import re
import shutil
import signal
import threading
from collections.abc import Iterator, Mapping
from typing import Any

import grain
import jax.numpy as jnp
import numpy as np
from absl import flags

from cnn_jax import names
from cnn_jax.data import cache, pictures, transforms
from cnn_jax.data.batches import InOrder, Maker, Shuffled
from cnn_jax.data.disk import OnDisk
from cnn_jax.data.item import Item, Split
from cnn_jax.data.order import process_rows
from cnn_jax.data.preprocess import Statistics, Sums

SHARED_MEMORY = "/dev/shm"  # where Grain's workers place batches, on Linux
LARGEST = 2**62  # bytes, larger than any batch
MOST_WORKERS = 1024
THREADS = 4  # that make batches if there are no workers
AHEAD = 2  # batches that each worker keeps ready
ADDRESS = " at 0x"  # in the text that Python gives an object of a class without one


class Stream:
    """A `Source` that decodes pictures on demand.

    Args:
      on_disk: the dataset.
      train: section of the training transform: 'scale', 'alexnet', 'inception'.
      test: section of the evaluation transform: 'center', 'ten_crop'.
      workers: number of decoding processes; 0 for threads of this process.
      clean_images: training examples, evenly spread, on which the clean training
        error is measured; 0 for all.
      statistics_images: training examples, evenly spread, from which the mean
        and standard deviation are computed (on central crops); 0 for all.
      damaged: 'refuse' damaged pictures or 'accept' their decodable part (see
        `pictures.decode`).
      process_index: this process (host) among ``process_count``.
      process_count: processes that share a global batch.

    Raises:
      ConfigError: unknown transform or field, or training and evaluation sizes that
        differ.
    """

    def __init__(
        self,
        on_disk: OnDisk,
        train: Mapping[str, Any],
        test: Mapping[str, Any],
        workers: int = 0,
        clean_images: int = 0,
        statistics_images: int = 0,
        damaged: pictures.Damaged = "refuse",
        process_index: int = 0,
        process_count: int = 1,
    ):
        for field, value in (
            ("workers", workers),
            ("clean_images", clean_images),
            ("statistics_images", statistics_images),
        ):
            if value < 0:
                raise names.ConfigError(f"dataset.stream: {field} {value} is negative")
        if workers > MOST_WORKERS:
            raise names.ConfigError(
                f"dataset.stream: workers must be at most {MOST_WORKERS}, got {workers}"
            )
        self._train = transforms.build("train", train)
        # The text of a user's object may be its address, which no other process has.
        text = str(self._train)
        self._text = str(dict(sorted(train.items()))) if ADDRESS in text else text
        self._test = transforms.build("test", test)
        if self._train.size != self._test.size:
            raise names.ConfigError(
                "dataset.stream: the sizes of train and test must be equal, got "
                f"{self._train.size} and {self._test.size}"
            )
        reader = on_disk.train.reader
        self.name, self.num_classes = reader.name, reader.num_classes
        self.class_names = reader.class_names
        self.image_shape = (self._train.size, self._train.size, reader.channels)
        self.num_train, self.num_test = len(on_disk.train), len(on_disk.test)
        self.evaluated = on_disk.evaluated
        self._parts = {"train": on_disk.train, "test": on_disk.test}
        self._clean = {"train": clean_images, "test": 0}
        self._statistics_images = statistics_images
        self._workers, self._damaged = workers, damaged
        self._process = (process_index, process_count)

    @functools.cached_property
    def fingerprint(self) -> str:
        """Checksum of the files and the selected examples, in hexadecimal."""
        parts = {split: part.key(remember=True) for split, part in self._parts.items()}
        return cache.key(**parts)

    def resident(self) -> dict[str, Any]:
        """Empty: items carry the pixels."""
        return {}

    def train_batches(
        self, seed: int, batch_size: int, step: int, state: bytes = b""
    ) -> Iterator[tuple[Item, bytes]]:
        """See `Source.train_batches`; the state only serves as a check.

        Raises:
          ConfigError: the batch is not divisible by the number of processes, the
            state belongs to another stream, or an example cannot be read or decoded.
        """
        rows = process_rows(batch_size, *self._process)
        if state:
            self._check_state(json.loads(state), self._state(seed, batch_size, step))
        maker = Maker(self._parts["train"], self._train, self._damaged, seed)
        for item in self._batches(Shuffled(maker, batch_size, rows, step)):
            step += 1
            after = self._state(seed, batch_size, step)
            yield item, json.dumps(after).encode()

    def eval_batches(self, split: Split, batch_size: int) -> Iterator[Item]:
        """See `Source.eval_batches`; 'train' yields ``clean_images`` examples.

        Raises:
          ConfigError: as `train_batches`.
        """
        part = self._parts[split]
        maker = Maker(part, self._test, self._damaged)
        rows = process_rows(batch_size, *self._process)
        numbers = _spread(len(part), self._clean[split])
        yield from self._batches(InOrder(maker, numbers, batch_size, rows))

    def take(self, resident: Any, item: Item) -> dict[str, Any]:
        """See `Source.take`; the views of an example are consecutive."""
        del resident
        image = item["image"].reshape(-1, *item["image"].shape[-3:])
        mask = item.get("mask", jnp.ones(item["label"].shape, jnp.float32))
        return {"image": image, "label": item["label"], "mask": mask}

    def statistics(self) -> Statistics:
        """Mean and standard deviation of central crops of training images.

        All workers compute them once; a cache beside the data stores them.
        """
        part = self._parts["train"]
        crop = transforms.CenterCrop(
            self._test.size, getattr(self._test, "shorter", self._test.size)
        )
        numbers = _spread(len(part), self._statistics_images)
        store = cache.Cache(part.reader.path)
        key = cache.key(
            part=part.key(remember=True), images=len(numbers), crop=str(crop)
        )
        name = f"statistics-v1-{key}"
        found = store.read(name)
        if found is None:
            found = self._measure(Maker(part, crop, self._damaged), numbers)
            store.write(name, found, name)
        return Statistics(**found)

    def _measure(self, maker: Maker, numbers: np.ndarray) -> dict[str, np.ndarray]:
        logging.getLogger(__name__).info(
            "computing the mean and standard deviation of %d images of %s",
            len(numbers),
            self.name,
        )
        sums = Sums(self.image_shape)
        for item in self._batches(InOrder(maker, numbers, 64, slice(None))):
            sums.add(item["image"][item["mask"] > 0])
        return dataclasses.asdict(sums.statistics())

    def _batches(self, batches: Shuffled | InOrder) -> Iterator[Item]:
        """The items in order, prefetched by Grain."""
        # an evaluation of few batches does not justify many processes
        workers = min(self._workers, len(batches))
        threads = 1 if workers else THREADS
        loader = grain.MapDataset.source(batches).to_iter_dataset(
            grain.ReadOptions(num_threads=threads, prefetch_buffer_size=threads)
        )
        if workers:
            if self._shared_memory_is_small(batches, workers):
                pipes = grain.experimental.DatasetOptions(min_shm_size=LARGEST)
                loader = grain.experimental.WithOptionsIterDataset(loader, pipes)
            # Grain's workers read absl flags even if the program never parsed any.
            if not flags.FLAGS.is_parsed():
                flags.FLAGS.mark_as_parsed()
            loader = loader.mp_prefetch(
                grain.MultiprocessingOptions(
                    num_workers=workers, per_worker_buffer_size=AHEAD
                ),
                worker_init_fn=_follow_parent,
            )
        iterator = iter(loader)
        try:
            yield from map(_own, iterator) if workers else iterator
        except RuntimeError as error:
            code = re.search(
                r"terminated unexpectedly with exit code (\S+)\.", str(error)
            )
            if code is None:
                raise
            raise death(int(code[1])) from error
        finally:
            if hasattr(iterator, "close"):
                iterator.close()

    def _shared_memory_is_small(
        self, batches: Shuffled | InOrder, workers: int
    ) -> bool:
        """Whether batches must go through pipes, which are slower."""
        maker, rows = batches.maker, len(range(*batches.rows.indices(2**31)))
        rows = min(rows, batches.batch_size)
        image = math.prod(self.image_shape) * maker.transform.views
        # per worker: AHEAD prefetched batches, one being made and one in use; twice,
        # because an evaluation runs while training batches wait
        needed = 2 * workers * (AHEAD + 2) * rows * image
        try:
            there = shutil.disk_usage(SHARED_MEMORY).free
        except OSError:  # not on this system
            return False
        if needed <= there:
            return False
        logging.getLogger(__name__).warning(
            "%s has %.0f MB free, but the batches of this stream need %.0f MB: using "
            "pipes instead, which are slower (in Docker, pass --shm-size=%dm)",
            SHARED_MEMORY,
            there / 2**20,
            needed / 2**20,
            -(-needed // 2**20),
        )
        return True

    def _state(self, seed: int, batch_size: int, step: int) -> dict[str, Any]:
        """The stream and the position in it, which must match for a run to resume."""
        return {
            "data": self.fingerprint,
            "transform": self._text,
            "seed": seed,
            "position": step * batch_size,
        }

    def _check_state(self, found: dict[str, Any], expected: dict[str, Any]) -> None:
        # Earlier versions wrote addresses, and lists where the config had them.
        plain = str.maketrans("[]", "()")
        texts = {key: str(found.get(key)) for key in expected}
        differing = [
            key
            for key, value in expected.items()
            if texts[key].translate(plain) != str(value).translate(plain)
            and ADDRESS not in texts[key]
        ]
        if differing:
            was, now = found.get(differing[0]), expected[differing[0]]
            raise names.ConfigError(
                f"dataset {self.name!r}: the stream differs from that of the stopped "
                f"run: {differing[0]} was {was!r}, is {now!r}"
            )


def _spread(count: int, wanted: int) -> np.ndarray:
    """``wanted`` numbers spread evenly over 0 ... count - 1; all for 0."""
    if not 0 < wanted < count:
        return np.arange(count)
    return np.arange(wanted) * count // wanted


def _own(item: Item) -> Item:
    """A copy outside the shared memory through which a worker passes it.

    Device arrays may alias a host array's memory, and some live until the process
    ends. By then Grain no longer frees shared memory, and Python reports a leak.
    """
    return {key: np.array(value) for key, value in item.items()}


def death(code: int) -> ChildProcessError:
    """The error for a worker that ended with an exit code."""
    how = f"ended with exit code {code}"
    with contextlib.suppress(ValueError):
        how = f"was killed by {signal.Signals(-code).name}"
    reasons = {
        -signal.SIGKILL: "; if memory ran out, reduce dataset.stream.workers or "
        "batch_size",
        -signal.SIGBUS: f"; {SHARED_MEMORY} is full: enlarge it (in Docker, with "
        "--shm-size), or reduce dataset.stream.workers or batch_size",
    }
    return ChildProcessError(
        f"a worker of the stream {how}{reasons.get(code, '')}; run the same command "
        "again to resume"
    )


def _follow_parent(worker: int, workers: int) -> None:
    """Let the parent alone decide when this worker ends: also when it is killed.

    A terminal's Ctrl-C and a batch system's signals reach all processes of a run, which
    still needs batches until it has saved a checkpoint.
    """
    del worker, workers
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2"):
        signal.signal(getattr(signal, name), signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None  # this is a worker

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
