"""The least that can be resumed, and what tests of checkpoints share."""

import json

import torch
from torch import nn

from options.schema import Opt
from utils import utils_checkpoint
from utils.checkpoint import optimizer_state

OPTIONS = Opt(task="t").model_dump(mode="json")
RECORD = {"options": OPTIONS, "best": {"step": 1, "psnr": 30.5}, "seed": 7}


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 3)
        self.deform = nn.Linear(3, 3)

    def forward(self, x):
        return self.deform(self.layer(x))


class Trainee:
    """The least that can be resumed; `fixed` are the names in an optimizer group of their own."""

    def __init__(self, seed=0, fixed=(), average=True, lr=1e-3):
        torch.manual_seed(seed)
        self.netG, self.netE = Net(), Net() if average else None
        groups = {False: [], True: []}
        for name, parameter in self.netG.named_parameters():
            groups[any(key in name for key in fixed)].append(parameter)
        self.optimizer = torch.optim.Adam([{"params": group} for group in groups.values() if group], lr=lr)

    def train(self, steps=1):
        for _ in range(steps):
            self.optimizer.zero_grad()
            self.netG(torch.ones(2, 3)).square().sum().backward()
            self.optimizer.step()
        return self

    def state_dicts(self):
        state = {"optimizer": optimizer_state.named_state(self.optimizer, self.netG), "extra": {"row": 3}}
        states = {"G": self.netG.state_dict(), "state": state}
        return states | ({"E": self.netE.state_dict()} if self.netE else {})

    def load_state_dicts(self, states):
        utils_checkpoint.load_weights(self.netG, states["G"])
        if self.netE:
            utils_checkpoint.load_weights(self.netE, states.get("E", states["G"]))
        optimizer_state.load_named_state(self.optimizer, self.netG, states["state"]["optimizer"])

    def moments(self):
        return {name: self.optimizer.state.get(parameter) for name, parameter in self.netG.named_parameters()}


def same_weights(one, other):
    return all(map(torch.equal, one.state_dict().values(), other.state_dict().values()))


def same_moments(one, other):
    return all(
        torch.equal(one[name][key], other[name][key]) for name in one for key in ("exp_avg", "exp_avg_sq", "step")
    )


def changed(**blocks):
    options = json.loads(json.dumps(OPTIONS))
    for block, values in blocks.items():
        options[block].update(values)
    return options


def damage_truncate(path):
    path.write_bytes(path.read_bytes()[:-1])
