"""One rank of torch.distributed: what the tests of SyncBatchNorm have it do. store, ranks, rank, case, arguments."""

import sys
from datetime import timedelta

import numpy as np
import torch
from torch import distributed as dist, nn

import cpubn
import cpubn.torch

C, IMAGES = 8, 12
STORE, COUNT, RANK = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
# Uneven, and of three ranks or more one is empty.
ENDS = {1: [0, 12], 2: [0, 3, 12], 3: [0, 3, 3, 12], 4: [0, 3, 3, 4, 12]}[COUNT]
MINE = slice(ENDS[RANK], ENDS[RANK + 1])


def batch(dtype=torch.float32, mean=100.0):
    rng = np.random.default_rng(0)
    x, dy = (
        torch.from_numpy(rng.normal(mean, 1, (IMAGES, C, 5, 6))),
        torch.from_numpy(rng.normal(size=(IMAGES, C, 5, 6))),
    )
    return x.to(dtype), dy.to(dtype)


def norm(make, dtype=torch.float32, **options):
    torch.manual_seed(0)
    bn = make(C, **options)
    nn.init.normal_(bn.weight)
    nn.init.normal_(bn.bias)
    return bn.to(dtype)


def apart(a, b):
    return float((a.detach().double() - b.detach().double()).abs().max()) if a.numel() else 0.0


def gathered(value):
    """What all ranks have, as one list."""
    values = [None] * COUNT
    dist.all_gather_object(values, value)
    return values


def whole(dtype, layout, relu=""):
    """Against one batch norm of torch's, in float64, of the whole batch."""
    dtype = getattr(torch, dtype)
    form = getattr(torch, layout)
    x, dy = batch(dtype)
    bn = norm(cpubn.torch.SyncBatchNorm, dtype, activation=relu or None)
    own = x[MINE].contiguous(memory_format=form).requires_grad_()
    calls, kept = [], cpubn.torch.Ranks.allgather
    cpubn.torch.Ranks.allgather = lambda self, values: calls.append(1) or kept(self, values)
    y = bn(own)
    y.backward(dy[MINE])
    assert len(calls) == (2 if COUNT > 1 else 0), calls
    assert y.dtype == dtype
    assert y.is_contiguous(memory_format=form)
    reference = norm(nn.BatchNorm2d, torch.float64)
    full = x.double().requires_grad_()
    z = reference(full)
    z = z.relu() if relu else z
    z.backward(dy.double())
    for p in bn.parameters():
        dist.all_reduce(p.grad)
    found = [apart(y, z[MINE]), apart(own.grad, full.grad[MINE])]
    found += [apart(p.grad, q.grad) / 100 for p, q in zip(bn.parameters(), reference.parameters(), strict=True)]
    found += [apart(bn.running_mean, reference.running_mean) / 100, apart(bn.running_var, reference.running_var)]
    bits = {k: v.double().numpy().tobytes() for k, v in bn.state_dict().items()}
    assert all(other == bits for other in gathered(bits)), "running statistics differ"
    assert int(bn.num_batches_tracked) == 1
    print(max(found))


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(C, C, 3), nn.BatchNorm2d(C), nn.ReLU(), nn.Conv2d(C, 4, 3), nn.BatchNorm2d(4), nn.Flatten()
        )

    def forward(self, x):
        return self.layers(x).square().mean(1)


def ddp():
    """Losses of training by DistributedDataParallel, of ranks with as many images each, and of one process."""
    x, _ = batch(mean=1.0)
    mine = slice(RANK * IMAGES // COUNT, (RANK + 1) * IMAGES // COUNT)

    def losses(model, x, over):
        optimizer, found = torch.optim.SGD(model.parameters(), lr=0.05), []
        for step in range(5):
            optimizer.zero_grad()
            loss = model(x * (1 + step)).mean()
            loss.backward()
            optimizer.step()
            total = loss.detach().clone()
            if over:
                dist.all_reduce(total)
            found.append(float(total) / (COUNT if over else 1))
        return found

    torch.manual_seed(0)
    alone = Net()
    torch.manual_seed(0)
    model = cpubn.torch.convert_sync_batchnorm(Net())
    together = losses(nn.parallel.DistributedDataParallel(model), x[mine], True)
    one = losses(alone, x, False)
    print(max(abs(a - b) for a, b in zip(together, one, strict=True)))


def groups():
    """Of two groups each has statistics of its own; eval mode is plain."""
    groups = [dist.new_group([k for k in range(COUNT) if k % 2 == half]) for half in (0, 1)]
    bn = norm(cpubn.torch.SyncBatchNorm, process_group=groups[RANK % 2])
    x, _ = batch()
    bn(x[RANK : RANK + 1])
    means = gathered(bn.running_mean.tolist())
    assert means[0] == means[2] != means[1] == means[3]
    if RANK == 0:  # no other rank calls
        plain = norm(nn.BatchNorm2d)
        plain.load_state_dict(bn.state_dict())
        print(apart(bn.eval()(x), plain.eval()(x)))


def error(kind):
    """Rank 1 has an input that cannot be; all ranks say so."""
    bn, x = norm(cpubn.torch.SyncBatchNorm), batch()[0]
    if RANK == 1:
        x = {"shape": x[:, :3], "type": x.to(torch.int32), "rank": x[0, 0, 0]}[kind]
    try:
        bn(x)
    except Exception as caught:
        print(f"{type(caught).__name__}: {caught}")
    assert int(bn.num_batches_tracked) == 0


def layers():
    """A layer of plain arrays over gloo."""
    x, dy = (t.numpy() for t in batch(torch.float64))
    bn, one = cpubn.BatchNorm2d(C, comm=cpubn.torch.Ranks()), cpubn.BatchNorm2d(C)
    pairs = (bn(x[MINE]), one(x)[MINE]), (bn.backward(dy[MINE]), one.backward(dy)[MINE])
    print(max(float(abs(a - b).max(initial=0.0)) for a, b in pairs))


def main():
    torch.set_num_threads(1)
    cpubn.set_num_threads(1)
    how = {"init_method": f"file://{STORE}", "rank": RANK, "world_size": COUNT, "timeout": timedelta(seconds=60)}
    dist.init_process_group("gloo", **how)
    globals()[sys.argv[4]](*sys.argv[5:])
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
