"""Data-parallel training on CPUs: DistributedDataParallel, and batch norm of the whole batch, over gloo.

python examples/torch_ranks.py          two processes of this machine, and one for comparison
"""

import tempfile
import time
from pathlib import Path

import torch
from sklearn.datasets import load_digits
from torch import distributed as dist, multiprocessing, nn

import cpubn
import cpubn.torch

RANKS, STEPS, BATCH = 2, 40, 128


def new_network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        *(nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(16, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.Flatten(), nn.Linear(512, 10)),
    )


def train(network: nn.Module, part: slice) -> tuple[list[float], float]:
    """The losses of this process's images of each batch, and the seconds that it took."""
    pixels, digits = (torch.from_numpy(a) for a in load_digits(return_X_y=True))
    images = (pixels / 16).float().view(-1, 1, 8, 8)
    chooser = torch.Generator().manual_seed(0)
    descent, losses, start = torch.optim.SGD(network.parameters(), lr=0.1), [], time.perf_counter()
    for _ in range(STEPS):
        chosen = torch.randperm(len(digits), generator=chooser)[:BATCH][part]
        descent.zero_grad()
        loss = nn.functional.cross_entropy(network(images[chosen]), digits[chosen])
        loss.backward()
        descent.step()
        losses.append(float(loss.detach()))
    return losses, time.perf_counter() - start


def one_rank(rank: int, meeting: str) -> None:
    torch.set_num_threads(1)
    cpubn.set_num_threads(1)
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=RANKS)
    network = cpubn.torch.convert_sync_batchnorm(new_network())
    own = slice(rank * BATCH // RANKS, (rank + 1) * BATCH // RANKS)
    losses, seconds = train(nn.parallel.DistributedDataParallel(network), own)
    total = torch.tensor(losses, dtype=torch.float64)
    dist.all_reduce(total)
    if rank == 0:
        torch.set_num_threads(1)
        alone, alone_seconds = train(new_network(), slice(None))
        apart = max(abs(a - b) for a, b in zip((total / RANKS).tolist(), alone, strict=True))
        print(
            f"{RANKS} ranks: {seconds:.2f} s, loss {total[-1] / RANKS:.4f}; one: {alone_seconds:.2f} s, {alone[-1]:.4f}"
        )
        print(f"The loss curves are at most {apart:.1e} apart")
    dist.barrier()
    dist.destroy_process_group()


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        multiprocessing.spawn(one_rank, (f"file://{Path(folder) / 'meeting'}",), RANKS)


if __name__ == "__main__":
    main()
