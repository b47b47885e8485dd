"""Ranks of MPI as the `comm` of a layer, by mpi4py; to be imported by name.

    bn = cpubn.BatchNorm2d(64, comm=cpubn.mpi.world())

    mpirun -n 4 python -m mpi4py train.py

With ``-m mpi4py`` an error on one rank, wherever it is raised, ends the others, too; without it they would wait for
ever.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from cpubn.typing import Vector

try:
    from mpi4py import MPI
except (ImportError, RuntimeError) as error:  # RuntimeError: it finds no library of MPI
    raise ImportError(
        f"cpubn.mpi needs mpi4py and an MPI, which cannot be loaded: {error}; install both: pip install 'cpubn[mpi]'"
    ) from error


__all__ = ["Ranks", "world"]


class Ranks:
    """The processes of one of MPI's communicators.

    Parameters
    ----------
    comm : an mpi4py.MPI.Intracomm.

    Attributes
    ----------
    rank, size : the number of this process, and how many there are.

    Raises
    ------
    TypeError : ``comm`` is anything else.

    Examples
    --------
    >>> import numpy as np, cpubn.mpi
    >>> from mpi4py import MPI
    >>> cpubn.mpi.Ranks(MPI.COMM_SELF).allgather(np.ones(3)).shape
    (1, 3)
    """

    def __init__(self, comm: Any) -> None:
        if not isinstance(comm, MPI.Intracomm):
            raise TypeError(
                f"comm must be an mpi4py.MPI.Intracomm, got {type(comm).__name__}; pass MPI.COMM_WORLD or a part of it"
            )
        self.comm = comm

    @property
    def rank(self) -> int:
        """The number of this process."""
        return int(self.comm.rank)

    @property
    def size(self) -> int:
        """How many there are."""
        return int(self.comm.size)

    def allgather(self, values: Vector) -> Vector:
        """The arrays (n,) float64 of all ranks, (ranks, n); n must be the same on all of them."""
        got = np.empty((self.size, len(values)))
        self.comm.Allgather(np.ascontiguousarray(values, np.float64), got)
        return got

    def __repr__(self) -> str:
        return f"<rank {self.rank} of {self.size}>"


def world() -> Ranks:
    """All processes that mpirun started.

    Returns
    -------
    Ranks of MPI.COMM_WORLD; outside of mpirun this process alone.

    Examples
    --------
    >>> import numpy as np, cpubn, cpubn.mpi
    >>> bn = cpubn.BatchNorm1d(3, comm=cpubn.mpi.world())
    >>> bn(np.ones((4, 3))).shape
    (4, 3)
    """
    return Ranks(MPI.COMM_WORLD)
