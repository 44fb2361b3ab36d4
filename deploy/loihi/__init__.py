"""Every road to Loihi: Lava in a worker process, its processes for your own script, netx files, a board."""

from deploy.loihi.client import run_lava
from deploy.loihi.in_lava import LavaNetwork, admit_lava, to_lava
from deploy.loihi.server import LavaWorker, run_parallel

__all__ = ["LavaNetwork", "LavaWorker", "admit_lava", "run_lava", "run_parallel", "to_lava"]
