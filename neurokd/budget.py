"""The best student found under a budget of synaptic operations or modelled energy.

Each way of saving is tried, fine-tuned with the SAT loss on, and measured on the validation images; the most accurate
one that keeps the budget wins. Where fine-tuning is long, every way gets a quarter of it, and then the best two all of
it, from their start. The ways: pruning weights over all layers, the same share in each, or of each layer as much as the
output minds least; removing neurons and channels (the exported network is smaller), half by each, and pruning with a
penalty on spikes where hidden spikes cost a part worth it.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import torch

from deploy.errors import ConfigError, TrainingError
from neurokd.config_parts import StageConfig
from neurokd.data import Dataset
from neurokd.encoding import Encoding
from neurokd.energy import modelled_energy
from neurokd.feed import Feed, accuracy
from neurokd.loop import FitResult
from neurokd.network import SpikingNetwork
from neurokd.prune import prune_evenly, prune_weights, synops, worths
from neurokd.quantize import tune
from neurokd.quantized import QuantizedNetwork
from neurokd.rounding import to_integers
from neurokd.sensitivity import prune_by_sensitivity
from neurokd.shrink import shrink

PENALTY: Final = 0.3  # weight of the activity penalty, tried where hidden spikes cause a fifth of the synops
WORTH_A_PENALTY: Final = 0.2
MARGIN: Final = 0.98  # pruned to a little less, since fine-tuning moves the spike rates
LONG: Final = 8  # epochs from which on ways are tried with fewer first
SHORTER: Final = 4  # how many times fewer
FINALISTS: Final = 2
MENDS: Final = 3  # further prunings, with one epoch each, where a student is still above the budget

What = Literal["synops", "energy"]
Way = Callable[[float], QuantizedNetwork]
#: How a fine-tuned student that is still above the budget loses more weights, where that is not the same in each layer.
_MORE: Final = {"weights": prune_weights, **dict.fromkeys(("sensitivity", "both", "quiet"), prune_by_sensitivity)}


@dataclass(frozen=True)
class Budget:
    """A share of what the unpruned student on the chip's integers takes.

    Raises:
        ConfigError: a share that is not above 0 and at most 1.
    """

    what: What
    share: float

    def __post_init__(self) -> None:
        if not (isinstance(self.share, (int, float)) and 0 < self.share <= 1):
            raise ConfigError(
                f"the {self.what} budget is no share of the start", where=f"{self.what}_budget", got=repr(self.share),
                allowed="above 0, at most 1", next_step="0.5 asks for half of what the student takes now",
            )  # fmt: skip


def budget_of(synops_share: float | None, energy_share: float | None) -> Budget | None:
    """The budget asked for, None without one.

    Raises:
        ConfigError: both at once, or a share out of range.
    """
    if synops_share is not None and energy_share is not None:
        raise ConfigError(
            "two budgets at once", where="synops_budget, energy_budget", got=f"{synops_share}, {energy_share}",
            allowed="one of them", next_step="ask for the tighter one, and look at the other in the profile",
        )  # fmt: skip
    if synops_share is not None:
        return Budget("synops", synops_share)
    return None if energy_share is None else Budget("energy", energy_share)


@dataclass(frozen=True)
class Tried:
    """One way of saving.

    Attributes:
        how: ``weights``, ``evenly``, ``sensitivity``, ``neurons``, ``both`` or ``quiet``.
        cost: Synops, or modelled joules, a validation image.
        validation: Accuracy in percent.
        fits: Whether the budget is kept.
        spec: Of the network; weights: its weights that are not 0.
        epochs: Passes it was fine-tuned for.
    """

    how: str
    cost: float
    validation: float
    fits: bool
    spec: str
    weights: int
    epochs: int


@dataclass(frozen=True, eq=False)
class Found:
    """The winner.

    Attributes:
        network: On the chip's integers, fine-tuned.
        accuracy: Test accuracy in percent, read once, for the winner.
        validation: Validation accuracy in percent.
        start, limit: Cost of the unpruned student, and what was allowed.
        how: The way that won; tried: every way.
    """

    network: QuantizedNetwork
    accuracy: float
    validation: float
    start: float
    limit: float
    how: str
    tried: tuple[Tried, ...]


def under_budget(
    student: SpikingNetwork,
    data: Dataset,
    encoding: Encoding,
    stage: StageConfig,
    budget: Budget,
    *,
    grids: Mapping[str, Any] | None = None,
    checkpoint_dir: str | Path | None = None,
    **how: Any,
) -> Found:
    """Search.

    Args:
        student: Trained float student; it stays as it is.
        data: Validation chooses, test is read once, for the winner.
        encoding, stage: As for fine-tuning.
        budget: What is allowed.
        grids: Options of :func:`neurokd.rounding.to_integers`.
        checkpoint_dir: Folder for resumable state, a folder below it for each way.
        **how: Options of :func:`neurokd.quantize.tune`.

    Raises:
        TrainingError: no way kept the budget.
        ConfigError, ModuleError, UnsupportedNode, ProgramError, RuleError: as fine-tuning.
    """
    return _Search(student, data, encoding, stage, budget, dict(grids or {}), checkpoint_dir, how).go()


@dataclass
class _Search:
    student: SpikingNetwork
    data: Dataset
    encoding: Encoding
    stage: StageConfig
    budget: Budget
    grids: dict[str, Any]
    folder: str | Path | None
    how: dict[str, Any]

    def __post_init__(self) -> None:
        self.aims: dict[str, float] = {}  # synops a way prunes to before it is fine-tuned
        self.feed = Feed(self.data.validation, self.encoding)
        self.start_network = to_integers(self.student, **self.grids)
        self.synops = synops(self.start_network, self.feed)
        self.start = self.cost(self.start_network)
        self.limit = self.budget.share * self.start

    def go(self) -> Found:
        ways = self._ways()
        self.aims.update(dict.fromkeys(ways, MARGIN * self.budget.share * self.synops))
        tried, found = self._rounds(ways)
        good = [one for one in tried if one.fits and one.how in found]
        if not good:
            raise TrainingError(
                "no student keeps the budget", where=self.student.spec_text,
                got=", ".join(f"{one.how}: {one.cost:.4g}" for one in tried),
                allowed=f"{self.limit:.4g} ({self.budget.share:g} of {self.start:.4g} {self.budget.what} a sample)",
                next_step="ask for a larger budget, or train a smaller student",
            )  # fmt: skip
        best = max(good, key=lambda one: one.validation)
        network = found[best.how]
        test = accuracy(network, Feed(self.data.test, self.encoding))
        return Found(network, test, best.validation, self.start, self.limit, best.how, tuple(tried))

    def _ways(self) -> dict[str, Way]:
        ways: dict[str, Way] = {
            "weights": self._weights, "evenly": self._evenly, "sensitivity": self._sensitivity,
            "neurons": self._neurons, "both": self._both,
        }  # fmt: skip
        if len(self.student.spiking_layers()) < 2:
            ways = {"weights": self._weights}
        if self._hidden_share() >= WORTH_A_PENALTY:
            ways["quiet"] = ways.get("sensitivity", self._weights)
        return ways

    def _rounds(self, ways: dict[str, Way]) -> tuple[list[Tried], dict[str, QuantizedNetwork]]:
        """All ways as tried, and the networks of those that were fine-tuned for all epochs."""
        epochs = self.stage.epochs
        if epochs < LONG or len(ways) <= FINALISTS:
            return self._all(ways, epochs)
        first, _ = self._all(ways, epochs // SHORTER)
        first.sort(key=lambda one: (one.fits, one.validation), reverse=True)
        tried, found = self._all({one.how: ways[one.how] for one in first[:FINALISTS]}, epochs)
        return [*tried, *first[FINALISTS:]], found

    def _all(self, ways: dict[str, Way], epochs: int) -> tuple[list[Tried], dict[str, QuantizedNetwork]]:
        """Every way, fine-tuned for so many epochs."""
        found = {name: self._tuned(name, way, epochs) for name, way in ways.items()}
        return [self._measured(name, network, epochs) for name, network in found.items()], found

    def cost(self, network: QuantizedNetwork) -> float:
        """Synops or modelled joules a validation image."""
        if self.budget.what == "synops":
            return synops(network, self.feed, len(self.feed))
        return modelled_energy(network, self.data, self.encoding)

    def _hidden_share(self) -> float:
        """Share of the synops that spikes of hidden neurons cause."""
        found = worths(self.start_network, self.feed)
        first = self.start_network.quantized_layers()[0]
        with torch.no_grad():
            return 1.0 - float((found[first.name].cost * (first.integer_weights() != 0)).sum()) / self.synops

    # The ways -----------------------------------------------------------------------------------------------------

    def _weights(self, aim: float) -> QuantizedNetwork:
        network = to_integers(self.student, **self.grids)
        prune_weights(network, self.feed, aim)
        return network

    def _evenly(self, aim: float) -> QuantizedNetwork:
        network = to_integers(self.student, **self.grids)
        prune_evenly(network, self.feed, aim)
        return network

    def _sensitivity(self, aim: float) -> QuantizedNetwork:
        network = to_integers(self.student, **self.grids)
        prune_by_sensitivity(network, self.feed, aim)
        return network

    def _neurons(self, aim: float) -> QuantizedNetwork:
        return to_integers(self._smaller(aim), **self.grids)

    def _both(self, aim: float) -> QuantizedNetwork:
        network = to_integers(self._smaller(math.sqrt(aim * self.synops)), **self.grids)
        prune_by_sensitivity(network, self.feed, aim)
        return network

    def _smaller(self, aim: float) -> SpikingNetwork:
        return shrink(self.student, self.start_network, self.feed, aim)

    # Fine-tuning --------------------------------------------------------------------------------------------------

    def _tuned(self, name: str, way: Way, epochs: int) -> QuantizedNetwork:
        """A way's student, fine-tuned and under the budget if that can be had; the aim that took is remembered."""
        network = way(self.aims[name])
        loss = f"{self.stage.loss}+activity:{PENALTY}" if name == "quiet" else self.stage.loss
        stage = dataclasses.replace(self.stage, loss=loss, epochs=epochs)
        folder = name if epochs == self.stage.epochs else f"{name} in {epochs}"
        self._tune(network, stage, folder)
        for mend in range(MENDS):
            cost = self.cost(network)
            if cost <= self.limit:
                break
            less = MARGIN * self.limit / cost
            self.aims[name] *= less
            _MORE.get(name, prune_evenly)(network, self.feed, less * synops(network, self.feed))
            again = dataclasses.replace(stage, epochs=1, lr=stage.lr / 3)
            self._tune(network, again, f"{folder}-{mend + 1}")
        return network

    def _tune(self, network: QuantizedNetwork, stage: StageConfig, name: str) -> FitResult:
        folder = None if self.folder is None else Path(self.folder) / name
        validated = dataclasses.replace(self.data, test=self.data.validation)  # the test set is read for the winner
        return tune(network, validated, self.encoding, stage, checkpoint_dir=folder, **self._how())

    def _how(self) -> dict[str, Any]:
        chip = self.grids.get("chip", "loihi2")
        return {"chip": chip, **self.how}

    def _measured(self, name: str, network: QuantizedNetwork, epochs: int) -> Tried:
        cost = self.cost(network)
        with torch.no_grad():
            weights = sum(int((layer.integer_weights() != 0).sum()) for layer in network.quantized_layers())
        reached = accuracy(network, self.feed)
        return Tried(name, cost, reached, cost <= self.limit, network.spec_text, weights, epochs)
