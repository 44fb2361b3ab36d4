"""A plain snntorch training script, as one finds it in tutorials. Nothing in it knows of neurokd."""

import snntorch as snn
import torch
from sklearn.datasets import load_digits
from snntorch import surrogate
from torch import nn

STEPS = 10


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        spike = surrogate.fast_sigmoid(slope=25)
        self.fc1 = nn.Linear(64, 60)
        self.lif1 = snn.Leaky(beta=0.9, spike_grad=spike, reset_mechanism="zero", reset_delay=False)
        self.fc2 = nn.Linear(60, 10)
        self.lif2 = snn.Leaky(beta=0.9, spike_grad=spike, reset_mechanism="zero", reset_delay=False)

    def forward(self, x):
        mem1, mem2 = self.lif1.init_leaky(), self.lif2.init_leaky()
        recorded = []
        for _ in range(STEPS):
            spikes, mem1 = self.lif1(self.fc1(x), mem1)
            spikes, mem2 = self.lif2(self.fc2(spikes), mem2)
            recorded.append(spikes)
        return torch.stack(recorded)


def load():
    digits = load_digits()
    images = torch.tensor(digits.data, dtype=torch.float32) / 16.0
    labels = torch.tensor(digits.target)
    return images[:1400], labels[:1400], images[1400:], labels[1400:]


def train(net, images, labels, epochs=30):
    optimizer = torch.optim.Adam(net.parameters(), lr=5e-3)
    for _ in range(epochs):
        for rows in torch.randperm(len(images)).split(64):
            rates = net(images[rows]).mean(0)
            loss = nn.functional.cross_entropy(10 * rates, labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


if __name__ == "__main__":
    torch.manual_seed(0)
    net = Net()
    images, labels, test_images, test_labels = load()
    train(net, images, labels)
    accuracy = (net(test_images).sum(0).argmax(1) == test_labels).float().mean()
    print(f"test accuracy {100 * accuracy:.2f} %")
