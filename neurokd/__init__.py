"""The training side: spiking students, distillation, fine-tuning on the chip's integers, NIR export.

>>> data = neurokd.load_data("digits")                                                        # doctest: +SKIP
>>> teacher = neurokd.build("64-256-10", input_bits=4)                                        # doctest: +SKIP
>>> neurokd.train(teacher, data)                                                              # doctest: +SKIP
>>> student = neurokd.distill(neurokd.build("64-48-10", input_bits=4), teacher, data)         # doctest: +SKIP
>>> chip_student = neurokd.quantize(student, teacher, data, chip="loihi2")                    # doctest: +SKIP
>>> neurokd.export(chip_student, "student.nir")                                               # doctest: +SKIP
"""

from deploy.errors import NeurokdError
from neurokd.accept import accept, to_user
from neurokd.config import Config
from neurokd.data import load as load_data
from neurokd.distill import distill
from neurokd.encoding import Encoding
from neurokd.export import export
from neurokd.from_nir import from_nir
from neurokd.graph_module import to_torch
from neurokd.inherit import inherit
from neurokd.network import SpikingNetwork, build, predict
from neurokd.quantize import quantize
from neurokd.quantized import QuantizedNetwork
from neurokd.train import evaluate, train

__all__ = [
    "Config",
    "Encoding",
    "NeurokdError",
    "QuantizedNetwork",
    "SpikingNetwork",
    "accept",
    "build",
    "distill",
    "evaluate",
    "export",
    "from_nir",
    "inherit",
    "load_data",
    "predict",
    "quantize",
    "to_torch",
    "to_user",
    "train",
]
