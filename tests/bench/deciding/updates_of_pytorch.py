"""Updates of the improved MADDPG's networks in PyTorch, for scripts/bench association: prints updates a second as JSON.

The same actor, critic, mapping of actions, losses, sizes and optimiser as agents/src/maddpg, written as one writes them in PyTorch;
minibatches of random states lie ready.
"""

import argparse
import json
import statistics
import time

import torch
from torch import nn

parser = argparse.ArgumentParser()
parser.add_argument("--batch", type=int, default=256)
parser.add_argument("--threads", type=int, default=1)
parser.add_argument("--steps", type=int, default=100)
parser.add_argument("--turns", type=int, default=5)
arguments = parser.parse_args()

STATIONS, SUBCHANNELS, FEATURES, WIDTH, CRITIC_WIDTH, SCALARS, REPAIRS = 5, 5, 8, 32, 64, 2, 8
TAU_GAIN, K_GAIN, B_GAIN, SE_FLOOR = 5.0, 0.7, 0.5, 1e-6
B_MEAN, B_MIN, B_MAX = 0.148, 0.1, 0.4

torch.set_num_threads(arguments.threads)
torch.manual_seed(1)


class Exchangeable(nn.Module):
    """A layer of tokens (B, M, C, inputs) that the order of BSs and subchannels does not matter to."""

    def __init__(self, inputs):
        super().__init__()
        self.own, self.station, self.subchannel, self.all = (
            nn.Linear(inputs, WIDTH, bias=index == 0) for index in range(4)
        )

    def forward(self, x):
        station = x.mean(2, keepdim=True)
        shared = self.station(station) + self.all(station.mean(1, keepdim=True))
        return torch.relu(self.own(x) + self.subchannel(x.mean(1, keepdim=True)) + shared)


class Actor(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(Exchangeable(FEATURES), Exchangeable(WIDTH))
        self.tau, self.station = nn.Linear(WIDTH, 1), nn.Linear(WIDTH, 2)

    def forward(self, tokens):
        x = self.layers(tokens)
        return torch.cat([self.station(x.mean(2)), self.tau(x).squeeze(3)], 2)


class Critic(nn.Module):
    def __init__(self):
        super().__init__()
        self.station = nn.Sequential(
            nn.Linear(4 + SCALARS, CRITIC_WIDTH), nn.ReLU(), nn.Linear(CRITIC_WIDTH, CRITIC_WIDTH), nn.ReLU()
        )
        self.value = nn.Sequential(
            nn.Linear(2 * CRITIC_WIDTH + SCALARS, CRITIC_WIDTH), nn.ReLU(), nn.Linear(CRITIC_WIDTH, 1)
        )

    def forward(self, batch, actions):
        share, b, tau = relaxed(actions, batch["se"], batch["cpu"])
        of_stations = [
            share * STATIONS, rates(tau, batch["se"]) * 0.2, share * b * (STATIONS / B_MEAN), batch["cpu"] / 2.4
        ]
        shared = batch["scalars"].unsqueeze(1).expand(-1, STATIONS, -1)
        hidden = self.station(torch.cat([torch.stack([x.log() for x in of_stations], 2), shared], 2))
        return self.value(torch.cat([hidden.amax(1), hidden.mean(1), batch["scalars"]], 1)).squeeze(1)


def rates(tau, se):
    return (tau * se).sum(2).clamp_min(SE_FLOOR)


def relaxed(actions, se, cpu):
    tau = (actions[:, :, 2:] * TAU_GAIN).softmax(1)
    share = (actions[:, :, 0] * K_GAIN + rates(tau, se).log()).softmax(1)
    for _ in range(REPAIRS):
        tau = tau * (share / rates(tau, se)).unsqueeze(2)
        tau = tau / tau.sum(1, keepdim=True)
    b = cpu / cpu.sum(1, keepdim=True) * B_MEAN / share * (actions[:, :, 1] * B_GAIN).exp()
    for _ in range(2):
        b = b.clamp(B_MIN, B_MAX)
        b = b * (B_MEAN / (b * share).sum(1, keepdim=True))
    return share, b.clamp(B_MIN, B_MAX), tau


def minibatch():
    size = (arguments.batch, STATIONS)
    return {
        "input": torch.randn(*size, SUBCHANNELS, FEATURES),
        "se": torch.rand(*size, SUBCHANNELS) * 7.4,
        "cpu": 1.5 + 2 * torch.rand(*size),
        "scalars": torch.randn(arguments.batch, SCALARS),
        "actions": 2 * torch.rand(*size, 2 + SUBCHANNELS) - 1,
        "reward": torch.randn(arguments.batch),
    }


actor, critic = Actor(), Critic()
actor_adam = torch.optim.Adam(actor.parameters(), lr=1e-3)
critic_adam = torch.optim.Adam(critic.parameters(), lr=1e-3)


def step(optimiser, parameters, loss):
    parameters = list(parameters)
    # Gradients of what is stepped alone: the actor's loss reaches the critic's parameters too.
    for parameter, gradient in zip(parameters, torch.autograd.grad(loss, parameters)):
        parameter.grad = gradient
    nn.utils.clip_grad_norm_(parameters, 10.0)
    optimiser.step()


def update(batch):
    loss = (critic(batch, batch["actions"]) - batch["reward"]).square().mean()
    step(critic_adam, critic.parameters(), loss)
    outputs = actor(batch["input"])
    loss = outputs.square().mean() * 1e-4 - critic(batch, outputs.tanh()).mean()
    step(actor_adam, actor.parameters(), loss)


minibatches = [minibatch() for _ in range(16)]
turns = []
for turn in range(arguments.turns + 1):
    began = time.perf_counter()
    for at in range(arguments.steps):
        update(minibatches[at % len(minibatches)])
    # The first turn warms up.
    if turn > 0:
        turns.append(arguments.steps / (time.perf_counter() - began))
print(json.dumps({
    "torch": torch.__version__, "threads": arguments.threads, "batch": arguments.batch,
    "updates_per_s": statistics.median(turns), "turns": turns,
}))
