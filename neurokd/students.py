"""Teachers, assistants and students: every way to get a network, in one place.

network = build("784-128-10")                         # a network of our own, by its specification
network = accept(user_module, example_input)          # a user's snntorch module, unchanged
network = as_network(either, example_input)           # whichever it is
to_user(network, user_module)                         # trained parameters back into the user's module
"""

from __future__ import annotations

from neurokd.accept import accept, as_network, is_snntorch, to_user
from neurokd.network import SpikingLayer, SpikingNetwork, build, predict
from neurokd.spec import NetworkSpec

__all__ = [
    "NetworkSpec",
    "SpikingLayer",
    "SpikingNetwork",
    "accept",
    "as_network",
    "build",
    "is_snntorch",
    "predict",
    "to_user",
]
