"""The bare training loop of the paper's CNN in PyTorch, for scripts/bench learn: prints samples a second as JSON."""

import argparse
import json
import statistics
import time

import torch
from torch import nn

parser = argparse.ArgumentParser()
parser.add_argument("--batch", type=int, default=20)
parser.add_argument("--threads", type=int, default=1)
parser.add_argument("--steps", type=int, default=100)
parser.add_argument("--turns", type=int, default=5)
arguments = parser.parse_args()

torch.set_num_threads(arguments.threads)
torch.manual_seed(1)
model = nn.Sequential(
    nn.Conv2d(3, 32, 5, padding="same"), nn.ReLU(), nn.MaxPool2d(2),
    nn.Conv2d(32, 64, 5, padding="same"), nn.ReLU(), nn.MaxPool2d(2),
    nn.Flatten(), nn.Linear(4096, 512), nn.ReLU(), nn.Linear(512, 10),
)
assert sum(parameter.numel() for parameter in model.parameters()) == 2_156_490
optimiser = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
batches = [
    (torch.randn(arguments.batch, 3, 32, 32), torch.randint(0, 10, (arguments.batch,))) for _ in range(16)
]
rates = []
for turn in range(arguments.turns + 1):
    began = time.perf_counter()
    for step in range(arguments.steps):
        images, labels = batches[step % len(batches)]
        optimiser.zero_grad()
        nn.functional.cross_entropy(model(images), labels).backward()
        optimiser.step()
    # The first turn warms up.
    if turn > 0:
        rates.append(arguments.steps * arguments.batch / (time.perf_counter() - began))
print(json.dumps({
    "torch": torch.__version__, "threads": arguments.threads, "batch": arguments.batch,
    "samples_per_s": statistics.median(rates), "turns": rates,
}))
