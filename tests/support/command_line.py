"""The models that the tests of the command line use, and a function that runs a command."""

from __future__ import annotations

from pathlib import Path

from click.testing import CliRunner, Result

from export.cli import main

SOURCE = """
import torch
from torch import nn

X = torch.rand(1, 4, 12, 12)

def shared():
    conv = nn.Conv2d(4, 4, 3, groups=4)
    conv.weight.data = conv.weight.data[:1].repeat(4, 1, 1, 1)
    return nn.Sequential(conv), (X,)

def unshared():
    return nn.Sequential(nn.Conv2d(4, 4, 3, groups=4)), (X,)

def no_inputs():
    return shared()[0]

class Looks(nn.Module):
    def forward(self, x):
        return x + 1 if x.sum() > 0 else x

def untraceable():
    return Looks(), (X,)

class Measured(nn.Module):
    def __init__(self):
        super().__init__()
        self.blur = shared()[0]

    def forward(self, x):
        with torch.no_grad(), torch.autocast("cpu", enabled=False):
            return self.blur(x)

def measured():
    return Measured(), (X,)

class Exits(nn.Module):
    def forward(self, x):
        raise SystemExit(0)

def exits():
    return Exits(), (X,)

def blur(size):
    conv = nn.Conv2d(3, 3, size, padding=size // 2, groups=3)
    conv.weight.data = torch.rand(1, 1, size, size).repeat(3, 1, 1, 1)
    return conv

def blurs(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(blur(3), nn.ReLU(), blur(5)), (torch.rand(1, 3, 32, 48),)

def other_blurs():
    return blurs(1)

class Random(nn.Module):
    def __init__(self, draw):
        super().__init__()
        self.draw = draw

    def forward(self, x):
        return self.draw(x)

def noise():
    return Random(lambda x: x + torch.rand(4, 12, 12)), (X,)

def dropout():
    return Random(lambda x: nn.functional.dropout(x, training=True)), (X,)
"""


def write_models(folder: Path) -> Path:
    """Write the models into a file."""
    file = folder / "models.py"
    file.write_text(SOURCE)
    return file


def run(*arguments: object) -> Result:
    """Run a command in this process."""
    return CliRunner().invoke(main, [str(argument) for argument in arguments])
