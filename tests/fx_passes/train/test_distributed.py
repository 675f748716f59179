"""One process and two give the same kernel, with both ways of torch to train data-parallel."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from fx_passes import SharedKernelConv2d, share_kernels

STEPS, BATCH = 5, 8


def model() -> nn.Module:
    """A model that was shared, and one shared module that somebody wrote, with more channels in a block."""
    torch.manual_seed(0)
    blur = nn.Conv2d(6, 6, 3, padding=1, groups=6)
    with torch.no_grad():
        blur.weight.copy_(blur.weight[:1].clone().expand_as(blur.weight))
        blur.get_parameter("bias").fill_(0.1)
    net = nn.Sequential(
        nn.Conv2d(3, 6, 1), blur, nn.ReLU(), SharedKernelConv2d(6, 12, 3, groups=3), nn.Flatten()
    )
    return share_kernels(net.double())


def train(net: nn.Module, rank: int = 0, world: int = 1) -> nn.Module:
    """Five steps on the part of each batch that is this process's."""
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9)
    for number in range(STEPS):
        x = torch.randn(BATCH, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(number))
        optimizer.zero_grad()
        net(x[rank::world]).square().mean().backward()
        optimizer.step()
    return net


def work(way: str, out: Path) -> None:
    """What ``torchrun`` runs in each process."""
    import torch.distributed as dist
    from torch.distributed.fsdp import fully_shard
    from torch.distributed.tensor import DTensor
    from torch.nn.parallel import DistributedDataParallel

    dist.init_process_group("gloo")
    net = model()
    if way == "fully_shard":
        mesh = dist.device_mesh.init_device_mesh("cpu", (dist.get_world_size(),))
        fully_shard(net, mesh=mesh)
        assert all(isinstance(p, DTensor) for p in net.parameters())
        train(net, dist.get_rank(), dist.get_world_size())
        state = {name: p.full_tensor() for name, p in net.state_dict().items()}
    else:
        train(DistributedDataParallel(net), dist.get_rank(), dist.get_world_size())
        state = net.state_dict()
    if dist.get_rank() == 0:
        torch.save(state, out)
    dist.destroy_process_group()


@pytest.mark.slow
@pytest.mark.parametrize("way", ["DistributedDataParallel", "fully_shard"])
def test_two_processes_train_the_same_kernel(way: str, tmp_path: Path) -> None:
    """After five steps, on loopback."""
    start = model().state_dict()
    expected = train(model()).state_dict()
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--master-addr=127.0.0.1"]
    command += ["--master-port=0", "--rdzv-backend=c10d", "--rdzv-endpoint=127.0.0.1:0", __file__]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    run = subprocess.run(
        [*command, way, str(tmp_path / "state.pt")],
        env=environment,
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert run.returncode == 0, run.stderr[-3000:]
    found = torch.load(tmp_path / "state.pt")
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-9, atol=1e-12)
        assert not torch.equal(tensor, start[name])


if __name__ == "__main__":
    work(sys.argv[1], Path(sys.argv[2]))
    # gloo's threads outlive destroy_process_group. One that is late in letting go of a tensor asks for the
    # GIL of an interpreter that has ended, and torch aborts: seldom, more often on a busy machine, and with
    # no code of ours as well. Only a run that did all its work comes here: a failure has its own exit code.
    os._exit(0)
