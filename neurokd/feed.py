"""One split of a data set as the network's input, and what the network says about it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch

from deploy.errors import TrainingError
from neurokd.config_parts import StageConfig
from neurokd.data import Dataset, Split, batches
from neurokd.device import on_device
from neurokd.encoding import Encoding
from neurokd.mixing import Mixed, Mixing
from neurokd.network import predict
from neurokd.outputs import Outputs
from neurokd.spec import NetworkSpec
from neurokd.views import Views

EVALUATION_BATCH = 500

Indices = npt.NDArray[np.int64]


class Network(Protocol):
    """What the loop asks of a network: :class:`neurokd.network.SpikingNetwork` and the quantized one both have it."""

    training: bool
    options: dict[str, Any]
    steps: int
    input_bits: int
    spec: NetworkSpec

    @property
    def spec_text(self) -> str: ...

    @property
    def classes(self) -> int: ...

    def __call__(self, x: torch.Tensor, steps: int | None = None, record: bool = False) -> Any: ...

    def sat(self, x: torch.Tensor, steps: int | None = None) -> torch.Tensor: ...

    def state_dict(self) -> Mapping[str, torch.Tensor]: ...

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> Any: ...

    def parameters(self) -> Iterator[torch.nn.Parameter]: ...

    def train(self, mode: bool = True) -> Any: ...

    def eval(self) -> Any: ...


@dataclass(frozen=True)
class Batch:
    """A minibatch.

    Args:
        indices: int64 ``[B]`` into the split.
        inputs: float32 ``[B, C, H, W]`` (direct) or ``[T, B, C, H, W]``, 0 .. 1.
        labels: int64 ``[B]``; of mixed images shares of the classes, float32 ``[B, C]``.
    """

    indices: Indices
    inputs: torch.Tensor
    labels: torch.Tensor


@dataclass
class Feed:
    """Batches of one split, a view at a time; graded inputs are quantized once a view, not once a batch.

    Args:
        split: The images.
        encoding: How they become spikes.
        views: Which views there are; one, unchanged, when absent.
        mixing: How views mix images; not at all when absent.
    """

    split: Split
    encoding: Encoding
    views: Views = field(default_factory=Views)
    mixing: Mixing = field(default_factory=Mixing)
    _ready: tuple[int, Mixed] | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        if len(self.split) == 0:
            raise TrainingError(
                "the split is empty", where="data", got="0 images", allowed="at least one", next_step="check the data"
            )

    def __len__(self) -> int:
        return len(self.split)

    def train_batches(self, size: int, seed: int, epoch: int) -> Iterator[Batch]:
        """Shuffled batches of the epoch's view; a last batch that is not full is left out if there is another."""
        prepared = self._prepared(self.views.of_epoch(epoch))
        drop_last = len(self) > size
        for rows, images, labels in batches(prepared.split, size, seed=seed, epoch=epoch, drop_last=drop_last):
            yield self._batch(rows, images, prepared.targets(rows, labels))

    def batch_count(self, size: int) -> int:
        """Batches :meth:`train_batches` gives."""
        return max(1, len(self.split) // size)

    def in_order(self, view: int = 0, size: int = EVALUATION_BATCH) -> Iterator[Batch]:
        """Every image once, in file order."""
        prepared = self._prepared(view)
        for rows, images, labels in batches(prepared.split, size, shuffle=False):
            yield self._batch(rows, images, prepared.targets(rows, labels))

    def rows(self, indices: Indices, view: int = 0) -> Batch:
        """Some images in one view."""
        prepared = self._prepared(view)
        split = prepared.split
        return self._batch(indices, split.images[indices], prepared.targets(indices, split.labels[indices]))

    def _prepared(self, view: int) -> Mixed:
        """The split in one view; for the direct encoding its images are the quantized integers already."""
        if self._ready is None or self._ready[0] != view:
            mixed = self.mixing.make(Split(self.views.make(self.split.images, view), self.split.labels), view)
            if self.encoding.kind == "direct":
                images = self.encoding.encode(mixed.split.images, np.arange(len(mixed.split)))
                mixed = replace(mixed, split=Split(images, mixed.split.labels))
            self._ready = (view, mixed)
        return self._ready[1]

    def _batch(self, rows: Indices, images: npt.NDArray[np.uint8], labels: torch.Tensor) -> Batch:
        direct = self.encoding.kind == "direct"
        integers = images if direct else self.encoding.encode(images, rows)
        inputs = torch.from_numpy(integers).to(torch.float32) / self.encoding.levels
        return Batch(rows, inputs, labels)


def training_feed(split: Split, encoding: Encoding, stage: StageConfig, classes: int, seed: int) -> Feed:
    """The training images as a stage shows them, to the student and to its teacher."""
    views = Views(stage.views, stage.shift, stage.flip, seed)
    return Feed(split, encoding, views, Mixing(stage.mix, classes, seed))


def run_sat(network: Network, batch: Batch, encoding: Encoding) -> torch.Tensor:
    """The network's SAT for a batch, ``[T, B, C]``, T being the encoding's steps."""
    return network.sat(batch.inputs, steps=_held(encoding))


def run_layers(network: Network, batch: Batch, encoding: Encoding) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """The SAT, and every layer's spikes ``[T, B, *shape]`` in order."""
    sat, layers = network(batch.inputs, steps=_held(encoding), record=True)
    return sat, list(layers.values())


def run_outputs(network: Network, batch: Batch, encoding: Encoding, want: Collection[str]) -> Outputs:
    """The SAT for a batch, and what else is wanted: of :data:`neurokd.outputs.EXTRAS`.

    Raises:
        TrainingError: the network cannot tell it.
    """
    if not want:
        return Outputs(run_sat(network, batch, encoding))
    tell = getattr(network, "outputs", None)
    if tell is None and set(want) == {"layers"}:
        sat, layers = network(batch.inputs, steps=_held(encoding), record=True)
        return Outputs(sat, layers=layers)
    if tell is None:
        raise TrainingError(
            "the network cannot tell what the loss needs",
            where=network.spec_text,
            got=", ".join(sorted(want)),
            allowed="a loss on spikes, such as sat-ce",
        )
    told: Outputs = tell(batch.inputs, _held(encoding), want)
    return told


def _held(encoding: Encoding) -> int | None:
    return encoding.steps if encoding.kind == "direct" else None


def outputs(
    network: Network, feed: Feed, view: int = 0, tick: Callable[[int, int], None] | None = None
) -> Iterator[tuple[Batch, torch.Tensor]]:
    """The SAT of every image in order; as :func:`all_told`."""
    for batch, told in all_told(network, feed, (), view, tick):
        assert told.sat is not None
        yield batch, told.sat


def all_told(
    network: Network,
    feed: Feed,
    want: Collection[str],
    view: int = 0,
    tick: Callable[[int, int], None] | None = None,
) -> Iterator[tuple[Batch, Outputs]]:
    """The network's outputs for every image in order, in evaluation mode and without gradients.

    The mode is put back at the end.

    Args:
        network: Any network that takes the feed's inputs.
        feed: The split.
        want: What it shall tell beside the SAT.
        view: Which view.
        tick: Called with (batches done, batches) after each batch.
    """
    was_training = network.training
    network.eval()
    total = -(-len(feed) // EVALUATION_BATCH)
    try:
        with on_device(network) as place:
            for done, batch in enumerate(feed.in_order(view), start=1):
                batch = replace(batch, inputs=batch.inputs.to(place), labels=batch.labels.to(place))
                with torch.no_grad():
                    told = run_outputs(network, batch, feed.encoding, want)
                yield batch, told
                if tick is not None:
                    tick(done, total)
    finally:
        network.train(was_training)


def accuracy(network: Network, feed: Feed, tick: Callable[[int, int], None] | None = None) -> float:
    """Share of images predicted as labelled, in percent."""
    correct = sum(int((predict(sat) == batch.labels).sum()) for batch, sat in outputs(network, feed, tick=tick))
    return 100.0 * correct / len(feed)


def split_digest(split: Split) -> str:
    """Digest of a split's images and labels."""
    total = hashlib.blake2b(f"{split.images.shape}".encode(), digest_size=16)
    total.update(np.ascontiguousarray(split.images).data)
    total.update(np.ascontiguousarray(split.labels).data)
    return total.hexdigest()


def data_digest(data: Dataset) -> str:
    """Digest of what a training run sees: the training and validation splits."""
    return split_digest(data.train) + split_digest(data.validation)
