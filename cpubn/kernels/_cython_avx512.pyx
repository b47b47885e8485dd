include "_cython.pyx"
