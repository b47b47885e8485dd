"""Data-parallel training in NumPy: every rank sees its own images of each batch, and the losses are one process's.

mpirun -n 2 python -m mpi4py examples/mpi_digits.py
"""

import numpy as np
from mpi4py import MPI

import cpubn.mpi
from cpubn.demo.network import Network, cross_entropy
from cpubn.demo.training import load

STEPS, BATCH, RATE = 60, 96, 0.1


def new_network(comm: cpubn.mpi.Ranks | None) -> Network:
    """The same first weights on all ranks; its batch norms ask all of them for their statistics."""
    network = Network(True, np.random.default_rng(0))
    for layer in network.layers:
        if isinstance(layer, cpubn.BatchNorm1d):
            layer.comm = comm
    network.train(True)
    return network


def add_up_gradients(network: Network) -> None:
    """Of every rank's images, in the order of ranks."""
    for layer in network.layers:
        for name in ("weight_grad", "bias_grad"):
            gradient = getattr(layer, name, None)
            if gradient is not None:
                gradient[...] = np.sum(MPI.COMM_WORLD.allgather(gradient), axis=0)


def losses(part: slice, comm: cpubn.mpi.Ranks | None) -> list[float]:
    """Of every step; `part` says which images of a batch are this process's."""
    data, rng, network = load(0), np.random.default_rng(1), new_network(comm)
    found = []
    for _ in range(STEPS):
        chosen = rng.permutation(len(data.digits))[:BATCH][part]
        loss, dscores = cross_entropy(network(data.pixels[chosen]), data.digits[chosen])
        share = len(chosen) / BATCH  # a mean over these images becomes a part of the mean over all
        network.backward(dscores * np.float32(share))
        if comm is not None:
            add_up_gradients(network)
            loss = sum(MPI.COMM_WORLD.allgather(loss * share))
        network.descend(RATE)
        found.append(loss)
    return found


def main() -> None:
    ranks = cpubn.mpi.world()
    # Uneven on purpose: rank k takes k + 1 shares of the batch.
    ends = [BATCH * k * (k + 1) // (ranks.size * (ranks.size + 1)) for k in range(ranks.size + 1)]
    together = losses(slice(*ends[ranks.rank : ranks.rank + 2]), ranks)
    alone = losses(slice(None), None)
    apart = max(abs(a - b) for a, b in zip(together, alone, strict=True))
    if ranks.rank == 0:
        print(f"{ranks.size} ranks, {STEPS} steps: loss {together[0]:.4f} at first, {together[-1]:.4f} at last")
        print(f"The losses are at most {apart:.1e} from those of one process")


if __name__ == "__main__":
    main()
