"""Design rules: one small function each, named after the rule; all run, all findings reported.

A rule reads the chip's limits as data. A limit nobody has published cannot be broken, but is said as a note by the
placement, not here. ``error`` means: this network cannot be put on this chip as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from deploy import fixed_point as fp
from deploy.chip import Chip
from deploy.errors import ChipError, RuleError
from deploy.graph.finding import Finding
from deploy.program import Population, Program

Rule = Callable[[Program, Chip], Iterator[Finding]]


def check(program: Program, chip: Chip) -> list[Finding]:
    """Every finding of every rule, in program order; a rule whose limit is not published is a note."""
    return [finding for rule in RULES for finding in _findings(rule, program, chip)]


def _findings(rule: Rule, program: Program, chip: Chip) -> list[Finding]:
    try:
        return list(rule(program, chip))
    except ChipError as error:
        name = rule.__name__.replace("_", " ")
        return [Finding("note", "program", f"not checked: {name}", str(error.got), "", str(error.next_step))]


def require(program: Program, chip: Chip) -> None:
    """Raise :class:`RuleError` with every broken rule, if there is one."""
    broken = [finding for finding in check(program, chip) if finding.severity == "error"]
    if not broken:
        return
    first = broken[0]
    raise RuleError(
        f"{len(broken)} rule{'s' if len(broken) > 1 else ''} of {chip.title} broken: "
        + "; ".join(f"{f.node}: {f.what}" for f in broken),
        where=first.node,
        got=first.got,
        allowed=first.allowed,
        next_step=first.next_step,
    )


def _error(node: str, what: str, got: object, allowed: object, next_step: str) -> Finding:
    return Finding("error", node, what, str(got), str(allowed), next_step)


def weight_bits_are_allowed(program: Program, chip: Chip) -> Iterator[Finding]:
    """Each synapse block uses a weight width that the chip has."""
    widths = chip.formats.weight_bits_allowed
    for synapse in program.synapses:
        if synapse.weight_bits not in widths:
            yield _error(
                synapse.name,
                "weight width",
                f"{synapse.weight_bits} bits",
                f"{list(widths)}",
                "quantize to another width",
            )


def weight_exponent_is_allowed(program: Program, chip: Chip) -> Iterator[Finding]:
    """Each ``weight_exp`` is within the chip's range."""
    low, high = chip.formats.weight_exp_min, chip.formats.weight_exp_max
    for synapse in program.synapses:
        if not low <= synapse.weight_exp <= high:
            yield _error(
                synapse.name, "weight_exp", synapse.weight_exp, f"{low}..{high}", "quantize with another scale"
            )


def input_fits_the_payload(program: Program, chip: Chip) -> Iterator[Finding]:
    """Graded input is not wider than what a spike of the chip carries (1 bit: plain spikes only)."""
    if program.input.bits > chip.formats.input_bits_max:
        yield _error(
            program.input.name,
            "graded input is wider than a spike's payload",
            f"{program.input.bits} bits",
            f"{chip.formats.input_bits_max} bits",
            "use rate or latency encoding, or a chip with graded spikes (loihi2)",
        )


def threshold_fits(program: Program, chip: Chip) -> Iterator[Finding]:
    """Each ``vth`` fits the chip's threshold register."""
    limit = (1 << chip.formats.vth_bits) - 1
    for population in program.populations:
        if population.vth > limit:
            yield _error(population.name, "vth", population.vth, f"0..{limit}", "quantize with another scale")


def bias_fits(program: Program, chip: Chip) -> Iterator[Finding]:
    """Each bias has a mantissa and exponent on the chip."""
    limit, exponent = 1 << (chip.formats.bias_mantissa_bits - 1), chip.formats.bias_exponent_max
    for population in program.populations:
        mantissa = population.bias_mant
        if population.bias_exp > exponent or mantissa.min(initial=0) < -limit or mantissa.max(initial=0) >= limit:
            yield _error(
                population.name,
                "bias",
                f"{mantissa.min()}..{mantissa.max()} << {population.bias_exp}",
                f"{-limit}..{limit - 1} << 0..{exponent}",
                "quantize with another scale",
            )


def reset_rule_is_on_the_chip(program: Program, chip: Chip) -> Iterator[Finding]:
    """The chip's neurons reset as the program's do; other rules run on CPU simulators only."""
    for population in program.populations:
        if population.reset not in chip.formats.reset_modes:
            yield _error(
                population.name,
                "not on the chip: reset rule",
                population.reset,
                ", ".join(chip.formats.reset_modes),
                "fine-tune the network with reset to zero (neurokd quantize does)",
            )


def refractory_period_is_on_the_chip(program: Program, _chip: Chip) -> Iterator[Finding]:
    """The oracle's neurons of this chip have no refractory period; a Program with one runs on CPU simulators only."""
    for population in program.populations:
        if population.refractory:
            yield _error(
                population.name,
                "not on the chip: refractory period",
                f"{population.refractory} steps",
                "0",
                "train without one, or run on CPU simulators",
            )


def readout_stays_below_the_threshold(program: Program, chip: Chip) -> Iterator[Finding]:
    """The chip has no neuron without threshold: a readout gets the highest, and must not be able to reach it."""
    limit = ((1 << chip.formats.vth_bits) - 1) << fp.ACTIVATION_SHIFT
    for population in program.populations:
        worst = 0 if population.spiking else largest_membrane(program, population)
        if worst > limit:
            yield Finding(
                "warning",
                population.name,
                "a readout's membrane could pass the chip's highest threshold, where it would spike and reset",
                f"up to {worst}",
                f"at most {limit}",
                "present fewer steps, let the membrane leak, or quantize with a larger scale",
            )


def largest_membrane(program: Program, population: Population) -> int:
    """A bound of |v| over all inputs and all steps of a sample, ``2^23 - 1`` where nothing smaller can be shown."""
    worst = sum(program.worst_sum(synapse) for synapse in program.incoming(population.name)) << fp.ACTIVATION_SHIFT
    steps = program.steps
    current = _geometric(worst, population.du + fp.CURRENT_DECAY_OFFSET, steps)
    if current > fp.MAX_STATE:  # the current may wrap
        return fp.MAX_STATE
    bias = int(abs(population.bias).max(initial=0))
    return min(_geometric(current + bias, population.dv, steps), fp.MAX_STATE)


def _geometric(added: int, decay: int, steps: int | None) -> int:
    """Bound of what is reached by adding ``added`` each step and decaying: the series' limit, or steps * added."""
    unity = 1 << fp.DECAY_BITS
    bounds = [-(-added * unity // decay)] if decay else []
    bounds += [added * steps] if steps is not None else []
    return min(bounds, default=fp.MAX_STATE if added else 0)


def delay_is_allowed(program: Program, chip: Chip) -> Iterator[Finding]:
    """No synapse waits longer than the chip's axons can."""
    for synapse in program.synapses:
        if synapse.delay > chip.formats.axonal_delay_max:
            yield _error(
                synapse.name, "delay", synapse.delay, f"0..{chip.formats.axonal_delay_max} steps", "shorten it"
            )


def sums_fit_the_accumulator(program: Program, chip: Chip) -> Iterator[Finding]:
    """No synaptic sum can leave the chip's accumulator, whatever comes in."""
    limit = (1 << (chip.formats.accumulator_bits - 1)) - 1
    for population in program.populations:
        worst = sum(program.worst_sum(synapse) for synapse in program.incoming(population.name))
        if worst > limit:
            yield _error(
                population.name,
                "a synaptic sum could leave the accumulator",
                worst,
                f"at most {limit} ({chip.formats.accumulator_bits} bits)",
                "use fewer input bits or a smaller fan-in",
            )


def state_widths_agree(program: Program, chip: Chip) -> Iterator[Finding]:
    """The Program's arithmetic is that of 24-bit state and 12-bit decays; the chip must have the same."""
    for what, has, needs in (
        ("state", chip.formats["state_bits"].value, fp.STATE_BITS),
        ("decay", chip.formats["decay_bits"].value, fp.DECAY_BITS),
    ):
        if has not in (None, needs):
            yield _error("program", f"{what} width", f"{needs} bits", f"{has} bits", "choose a Loihi-class chip")


RULES: Final[tuple[Rule, ...]] = (
    weight_bits_are_allowed,
    weight_exponent_is_allowed,
    input_fits_the_payload,
    threshold_fits,
    bias_fits,
    reset_rule_is_on_the_chip,
    refractory_period_is_on_the_chip,
    readout_stays_below_the_threshold,
    delay_is_allowed,
    sums_fit_the_accumulator,
    state_widths_agree,
)
