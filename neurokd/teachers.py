"""Who may teach: a spiking network of ours, any torch module, and how a stage asks them (cached answers or live ones).

A torch module that is not a :class:`neurokd.network.SpikingNetwork` is run as it is, on images ``[B, C, H, W]`` in
0..1: one that gives ``[B, classes]`` teaches by its logits (an ANN), one that gives ``[T, B, classes]``, or a tuple
that begins with it, by its SAT (a snntorch module with its own loop over time). Its submodules' outputs are its
features.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from deploy.errors import TrainingError
from neurokd import checkpoint
from neurokd.accept import is_snntorch
from neurokd.data import Dataset
from neurokd.device import device_of
from neurokd.encoding import Encoding
from neurokd.feed import Feed, Network, run_outputs
from neurokd.outputs import Outputs

INPUT_BITS = 8  # of the images a torch module sees; raw images of 256 levels lose nothing
_PROBED = 2  # images a torch module is shown to see what it gives; with one, [1, classes] could be [T, classes]

Shapes = Mapping[str, tuple[int, ...]]


class Telling(Protocol):
    """A teacher as the training loop asks it: :class:`neurokd.satcache.SatCache` and :class:`LiveTeacher`."""

    @property
    def key(self) -> str: ...

    @property
    def views(self) -> int: ...

    @property
    def samples(self) -> int: ...

    @property
    def classes(self) -> int: ...

    @property
    def holds(self) -> frozenset[str]: ...

    @property
    def shapes(self) -> Shapes: ...

    def told(self, indices: npt.ArrayLike, view: int = 0) -> Outputs: ...


class ModuleTeacher(nn.Module):
    """Any torch module as a teacher; see this file's head for what it may give.

    Args:
        module: Run in evaluation mode, without gradients.
        images: Some images of the data set, ``[B, C, H, W]`` in 0..1, to see what it gives.

    Raises:
        TrainingError: it cannot take the images, or gives neither logits nor spikes.
    """

    def __init__(self, module: nn.Module, images: Tensor) -> None:
        super().__init__()
        self.module, self.steps, self.input_bits = module, 1, INPUT_BITS
        self.options: dict[str, Any] = {}
        self._modes: dict[nn.Module, bool] = {}
        was_training = self.training = module.training
        self.eval()
        try:
            with torch.no_grad():
                probed = self._run(images[:_PROBED], ())
        finally:
            self.train(was_training)
        answer = probed.sat if probed.logits is None else probed.logits
        self.spikes, self.classes = probed.sat is not None, int(_there(answer).shape[-1])

    @property
    def spec_text(self) -> str:
        """The module's own text."""
        return repr(self.module)

    def train(self, mode: bool = True) -> ModuleTeacher:
        """Evaluation mode for the whole module; out of it every part gets the mode back that it had."""
        if not mode:
            self._modes = {part: part.training for part in self.module.modules()}
            self.module.eval()
        else:
            for part, before in self._modes.items():
                part.training = before
        self.training = mode
        return self

    def sat(self, x: Tensor, steps: int | None = None) -> Tensor:
        """Its SAT ``[T, B, C]``.

        Raises:
            TrainingError: it gives logits.
        """
        told = self.outputs(x, steps, ())
        if told.sat is None:
            raise no_spikes(self)
        return told.sat

    def outputs(self, x: Tensor, steps: int | None = None, want: Collection[str] = ("logits",)) -> Outputs:
        """Its logits or SAT for images ``[B, C, H, W]``, and with ``layers`` every submodule's output.

        Raises:
            TrainingError: it cannot take the images, or cannot tell what is wanted.
        """
        told = self._run(x, want)
        if not set(want) <= told.has:
            raise TrainingError(
                "the teacher cannot tell what the loss needs",
                where=f"teacher {type(self.module).__name__}",
                got=f"no {', '.join(sorted(set(want) - told.has))}",
                allowed=", ".join(sorted(told.has)),
                next_step="give neurokd.accept(module, ...) as the teacher, or a loss on what it tells",
            )
        return told

    def _run(self, x: Tensor, want: Collection[str]) -> Outputs:
        layers: dict[str, list[Tensor]] = {}
        hooks = [part.register_forward_hook(_keeper(layers, name)) for name, part in self.module.named_modules()
                 if name and "layers" in want]  # fmt: skip
        try:
            out = self.module(x.to(device_of(self.module)))
        except (RuntimeError, TypeError, ValueError, IndexError) as error:
            raise self._refused(f"{type(error).__name__}: {error}") from error
        finally:
            for hook in hooks:
                hook.remove()
        first = out[0] if isinstance(out, (tuple, list)) and out else out
        if not isinstance(first, Tensor) or not first.is_floating_point():
            raise self._refused(f"it gives {type(first).__name__}")
        if first.dim() == 2 and len(first) == len(x) and not is_snntorch(self.module):
            return Outputs(logits=first.detach().float(), layers=_stacked(layers, 1) if "layers" in want else None)
        if first.dim() == 3 and first.shape[1] == len(x):
            return Outputs(first.detach(), layers=_stacked(layers, None) if "layers" in want else None)
        raise self._refused(f"it gives {list(first.shape)} for {len(x)} images")

    def _refused(self, got: str) -> TrainingError:
        return TrainingError(
            "the module cannot teach",
            where=f"teacher {type(self.module).__name__}",
            got=got,
            allowed="takes images [B, C, H, W] in 0..1; gives logits [B, classes], or spikes [T, B, classes]",
            next_step="wrap it in a module that does, or give neurokd.accept(module, ...)",
        )


def as_teacher(teacher: Network | nn.Module, data: Dataset) -> Network:
    """The teacher as a stage runs it: a network of ours as it is, any other torch module as :class:`ModuleTeacher`.

    Raises:
        TrainingError: neither.
    """
    if isinstance(teacher, nn.Module) and not hasattr(teacher, "spec_text"):
        encoding = Encoding("direct", INPUT_BITS, 1, raw_levels=data.levels)
        images = next(Feed(data.train, encoding).in_order(size=_PROBED)).inputs
        return ModuleTeacher(teacher, images)  # type: ignore[return-value]
    if not hasattr(teacher, "spec_text"):
        raise TrainingError(
            "this is no teacher", got=type(teacher).__name__, allowed="a SpikingNetwork, or a torch nn.Module"
        )
    return teacher  # type: ignore[return-value]


def encoding_for(teacher: Network, student: Encoding, data: Dataset) -> Encoding:
    """What a teacher sees by default: what the student sees; a torch module the images themselves."""
    if isinstance(teacher, ModuleTeacher):
        return Encoding("direct", teacher.input_bits, 1, raw_levels=data.levels)
    return student


def check_teacher(teacher: Network, needed: Collection[str], where: str) -> None:
    """Refuse losses on spikes where a torch module gives none, before anything is computed.

    Raises:
        TrainingError: with the losses that can be had.
    """
    if isinstance(teacher, ModuleTeacher) and not teacher.spikes and {"sat", "membranes", "currents"} & set(needed):
        raise no_spikes(teacher, where)
    if isinstance(teacher, ModuleTeacher) and teacher.spikes and {"logits", "membranes", "currents"} & set(needed):
        raise TrainingError(
            "the teacher cannot tell what the loss needs",
            where=where,
            got=f"a {type(teacher.module).__name__} that gives spikes only",
            allowed="losses on the teacher's SAT or features",
            next_step="give neurokd.accept(module, ...) as the teacher: it tells logits and membranes too",
        )


def no_spikes(teacher: ModuleTeacher, where: str = "") -> TrainingError:
    """The refusal of a loss on the spikes of a teacher that has none."""
    return TrainingError(
        "the teacher does not spike, and the loss compares spikes",
        where=where or f"teacher {type(teacher.module).__name__}",
        got="a teacher that gives logits [B, classes]",
        allowed="losses on its logits or features: logit-kl, logit-mse, logit-mix, feature, attention",
        next_step="write the loss with those, e.g. ce+logit-kl",
    )


class LiveTeacher:
    """A frozen teacher that is run on each batch, for what is too large to keep (features).

    Args:
        teacher: From :func:`as_teacher`.
        feed: The training images in the teacher's own encoding, with the stage's views.
        want: What it shall tell beside its SAT.
        key: Digest of all it depends on.
    """

    def __init__(self, teacher: Network, feed: Feed, want: Collection[str], key: str) -> None:
        self.teacher, self.feed, self.want, self.key = teacher, feed, frozenset(want), key

    @property
    def views(self) -> int:
        """Number of views an image has."""
        return self.feed.views.count

    @property
    def samples(self) -> int:
        """Number of images."""
        return len(self.feed)

    @property
    def classes(self) -> int:
        """C."""
        return self.teacher.classes

    @property
    def holds(self) -> frozenset[str]:
        """What it tells."""
        silent = isinstance(self.teacher, ModuleTeacher) and not self.teacher.spikes
        return self.want if silent else self.want | {"sat"}

    @property
    def shapes(self) -> Shapes:
        """The shape of each of its layers, without time and batch; empty where no features are wanted."""
        if "layers" not in self.want:
            return {}
        layers = self.told(np.arange(min(_PROBED, len(self.feed)))).layers or {}
        return {name: tuple(value.shape[2:]) for name, value in layers.items()}

    def told(self, indices: npt.ArrayLike, view: int = 0) -> Outputs:
        """All that is wanted about some images."""
        was_training = self.teacher.training
        self.teacher.eval()
        try:
            with torch.no_grad():
                batch = self.feed.rows(np.asarray(indices, dtype=np.int64), view)
                batch = replace(batch, inputs=batch.inputs.to(device_of(self.teacher)))
                return run_outputs(self.teacher, batch, self.feed.encoding, self.want)
        finally:
            self.teacher.train(was_training)


def key_parts(teacher: Network) -> dict[str, Any]:
    """What a teacher's answers depend on: its tensors, its text and its options."""
    tensors = {name: value for name, value in teacher.state_dict().items() if isinstance(value, Tensor)}
    return {"teacher": checkpoint.digest(tensors), "spec": teacher.spec_text, "options": teacher.options}


def _keeper(layers: dict[str, list[Tensor]], name: str) -> Any:
    def keep(_module: nn.Module, _inputs: Any, output: Any) -> None:
        first = output[0] if isinstance(output, (tuple, list)) and output else output
        if isinstance(first, Tensor) and first.is_floating_point():
            layers.setdefault(name, []).append(first.detach().clone())  # what follows may be in place

    return keep


def _stacked(layers: dict[str, list[Tensor]], calls: int | None) -> dict[str, Tensor]:
    """Outputs ``[T, B, *shape]`` of the submodules that were called ``calls`` times, or any number of times alike."""
    return {
        name: torch.stack(values)
        for name, values in layers.items()
        if calls in (None, len(values)) and len({value.shape for value in values}) == 1
    }


def _there(value: Tensor | None) -> Tensor:
    assert value is not None
    return value
