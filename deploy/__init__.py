"""The chip side: NIR in, integer Program, simulator, Lava, proof of equality, profile. Never imports torch.

>>> program = deploy.lower("student.nir", chip="loihi2")                    # doctest: +SKIP
>>> trace = deploy.run(program, spikes)                                     # doctest: +SKIP
>>> deploy.verify("student.nir", spikes).raise_if_different()               # doctest: +SKIP
>>> deploy.profile(program, trace, chip="loihi1").to_html("report.html")    # doctest: +SKIP
"""

from deploy.backends import run
from deploy.chip import Chip, load_chip
from deploy.errors import NeurokdError
from deploy.lower import lower
from deploy.place import place
from deploy.profile import profile
from deploy.program import Program
from deploy.trace import Trace
from deploy.verify import verify

__all__ = ["Chip", "NeurokdError", "Program", "Trace", "load_chip", "lower", "place", "profile", "run", "verify"]
