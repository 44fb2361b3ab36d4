"""lava-dl's netx format, both ways: an HDF5 file with one group a layer (lava-dl 0.6.0, ``netx/hdf5.py``).

What is exact. :func:`write` writes what netx holds exactly and refuses the rest by name. ``netx.hdf5.Network``, made
with :func:`arguments`, then gives the Program's spikes, each layer one step behind the one before; samples may follow
each other without a gap except where spikes wait (delays, loops), since netx does not drop those on their way when a
sample ends.

Axis orders. Kernels ``[O, I/groups, kh, kw]`` and shapes ``(C, H, W)`` stand in the file as torch has them and netx
turns both; a flattened image is read in ``(C, H, W)`` order; a bias for each neuron stands in ``(W, H, C)``. Delays
stand one for each weight.

Classes. netx gives spikes of output neurons. Where several stand for a class, the file says how many in a dataset
beside the layers (``neurokd/population``), which :func:`read` takes up and lava-dl does not look at.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from deploy.files import atomic_path
from deploy.loihi.netx_read import Reader, contents
from deploy.loihi.netx_write import biases_moved, fill, refusals, require, round_biases
from deploy.program import Program, Shape

__all__ = ["arguments", "biases_moved", "read", "refusals", "round_biases", "write"]


def write(program: Program, path: str | Path) -> Path:
    """Write ``path`` for ``netx.hdf5.Network(path, **arguments(program, steps))``, atomically.

    Raises:
        UnsupportedNode: a netx file cannot hold the program exactly; every reason is named.
        FileError: the file cannot be written.
    """
    require(program)
    with atomic_path(path) as temporary, h5py.File(temporary, "w") as file:
        fill(file, program)
    return Path(path)


def arguments(program: Program, steps: int | None = None) -> dict[str, Any]:
    """What ``netx.hdf5.Network`` has to be told besides the file.

    Args:
        steps: Steps a sample lasts; then every layer is cleared when the next sample reaches it. Without it netx
            clears nothing, and biases integrated while the pipeline fills stay in the membranes.
    """
    made: dict[str, Any] = {"input_message_bits": program.input.bits if program.input.bits > 1 else 0}
    if steps is not None:
        made |= {"reset_interval": int(steps), "reset_offset": 1}  # the first layer hears the first input at step 2
    return made


def read(
    path: str | Path,
    *,
    input_bits: int = 1,
    input_shape: Shape | None = None,
    input_bias: npt.ArrayLike | None = None,
    steps: int | None = None,
    population: int | None = None,
) -> Program:
    """Read a netx file as a Program.

    Args:
        input_bits: Bits of the input's graded spikes; the file does not say.
        input_shape: ``(C, H, W)``, where a file that begins with a convolution does not say.
        input_bias: Where the file's input layer has neurons (netx drives them through their bias): their bias
            mantissas, shaped as the layer, which make that layer part of the Program, with an input of one silent
            neuron. Without it, what the input layer sends is the Program's input.
        steps: Steps a sample lasts, if known.
        population: Output neurons a class; what the file says when absent, else 1.

    Raises:
        FileError, GraphError: not readable, not HDF5, damaged, or no netx file.
        UnsupportedNode: a layer, neuron or field that has no counterpart here (sigma-delta, pooling ...).
        ProgramError: a value outside the chip's widths.
    """
    bias = None if input_bias is None else np.asarray(input_bias)
    layers, stated = contents(Path(path))
    each = stated if population is None else population
    return Reader(input_bits, input_shape, bias).program(layers, steps=steps, population=each)
