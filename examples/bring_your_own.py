"""Your own snntorch module, trained by your own script, to a verified run on Lava: the network is taken as it is."""

import sys
from pathlib import Path

import their_network
import torch

import deploy
import neurokd

out = Path(sys.argv[1] if len(sys.argv) > 1 else "runs/bring-your-own")

torch.manual_seed(0)
net = their_network.Net()
images, labels, test_images, test_labels = their_network.load()
their_network.train(net, images, labels)

student = neurokd.accept(net, input_shape=(64,), input_bits=5)  # same spikes, or a refusal that names the module
chip_student = neurokd.quantize(student)  # their weights rounded to the chip's grid; no training, no data needed
neurokd.export(chip_student, out / "student.nir")

program = deploy.lower(out / "student.nir", chip="loihi2")
integers = torch.round(test_images * 31).to(torch.uint8).numpy()  # 5-bit graded spikes, as the chip receives them
trace = deploy.run(program, integers)
proof = deploy.verify(program, integers[:32], against=["reference", "simulator", "lava"]).raise_if_different()

theirs = 100 * (net(test_images).sum(0).argmax(1) == test_labels).float().mean()
print(proof)
print(
    f"their network {theirs:.2f} %, the same network in the chip's integers {trace.accuracy(test_labels.numpy()):.2f} %"
)
