"""The integer simulator: bit-identical to the reference interpreter and to Lava's ``fixed_pt`` models, and fast."""

from deploy.simulator.engine import Recording, run, stream
from deploy.simulator.session import Session, open  # noqa: A004

__all__ = ["Recording", "Session", "open", "run", "stream"]
