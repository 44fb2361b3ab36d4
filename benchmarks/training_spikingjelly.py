"""SpikingJelly's multi-step mode as a contender of ``benchmarks.training``, run by the Python of its own environment.

It imports nothing of ours; the protocol is that of ``benchmarks.training_worker``. The network is the same: LIF with
``v = 0.9 v + I`` (tau 10, input not decayed), threshold 1, reset to 0 with gradient, atan; the first layer's current is
computed once an image, which favours it over repeating the image.
"""

import json
import re
import sys
import time

import torch
from spikingjelly.activation_based import functional, layer, neuron, surrogate
from torch import nn

T, B, CLASSES = 25, 128, 10


def peak():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmHWM:"))


def make(spec):
    """Synapses, neurons, and the input's shape of ``784-800-10`` or ``28x28x1-16c5s2-32c3s2-10``."""
    head, *parts = spec.split("-")
    size = [int(x) for x in head.split("x")]
    shape = (size[2], size[0], size[1]) if len(size) == 3 else (size[0],)
    now, modules = shape, []
    for part in parts:
        found = re.fullmatch(r"(\d+)c(\d+)(?:s(\d+))?", part)
        if found:
            channels, kernel, stride = int(found[1]), int(found[2]), int(found[3] or 1)
            modules.append(layer.Conv2d(now[0], channels, kernel, stride, step_mode="m"))
            now = (channels, *((x - kernel) // stride + 1 for x in now[1:]))
        else:
            if len(now) == 3:
                modules.append(layer.Flatten(step_mode="m"))
            width = 1
            for x in now:
                width *= x
            modules.append(layer.Linear(width, int(part), step_mode="m"))
            now = (int(part),)
        modules.append(
            neuron.LIFNode(
                tau=10.0, decay_input=False, v_threshold=1.0, v_reset=0.0, surrogate_function=surrogate.ATan(2.0),
                detach_reset=False, step_mode="m",
            )
        )  # fmt: skip
    return nn.Sequential(*modules), shape


def main(spec):
    torch.manual_seed(0)
    start = [peak()]
    network, shape = make(spec)
    images, labels = torch.randint(16, (B, *shape)).float() / 16, torch.randint(CLASSES, (B,))
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-4, fused=True)
    first, rest = network[0], network[1:]

    def step(samples=B):
        current = first(images[None, :samples])
        sat = rest(current.expand(T, *current.shape[1:]))
        loss = nn.functional.cross_entropy(10 * sat.mean(0), labels[:samples])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        functional.reset_net(network)

    step(2)
    start.append(peak())
    print(json.dumps({"ready": "SpikingJelly"}), flush=True)
    for line in sys.stdin:
        what, *rest_of = line.split()
        if what == "steps":
            answer = []
            for _ in range(int(rest_of[0])):
                started = time.perf_counter()
                step()
                answer.append(time.perf_counter() - started)
        else:
            answer = [(peak() - before) / 1024 for before in start]
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
