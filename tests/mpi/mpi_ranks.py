"""One rank of MPI: a layer over all ranks, against one of the whole batch; with "error", rank 1 fails."""

import sys

import numpy as np
from mpi4py import MPI

import cpubn
import cpubn.mpi

ranks = cpubn.mpi.world()
ends = {1: [0, 12], 2: [0, 3, 12], 3: [0, 3, 3, 12], 4: [0, 3, 3, 4, 12]}[ranks.size]
mine = slice(*ends[ranks.rank : ranks.rank + 2])
x, dy = np.random.default_rng(0).normal(100, 1, (2, 12, 8, 5, 5))

if sys.argv[1:] == ["error"]:
    bn = cpubn.BatchNorm2d(8, comm=ranks)
    try:
        bn(x[mine, :3] if ranks.rank == 1 else x[mine])
    except Exception as error:
        lines = ranks.comm.gather(f"{type(error).__name__}: {error}")
else:
    bn, one = cpubn.BatchNorm2d(8, comm=ranks), cpubn.BatchNorm2d(8)
    plain = cpubn.BatchNorm2d(8, comm=MPI.COMM_WORLD)  # mpi4py's own will do
    found = [abs(bn(x[mine]) - one(x)[mine]), abs(bn.backward(dy[mine]) - one.backward(dy)[mine])]
    found += [abs(plain(x[mine]) - one(x)[mine])]
    for name in ("weight_grad", "bias_grad"):
        found.append(abs(ranks.allgather(getattr(bn, name)).sum(0) - getattr(one, name)))
    bits = ranks.comm.allgather(bn.running_mean.tobytes() + bn.running_var.tobytes())
    assert len(set(bits)) == 1
    lines = ranks.comm.gather(max(float(a.max(initial=0.0)) for a in found))
if ranks.rank == 0:
    print(*lines, sep="\n")
