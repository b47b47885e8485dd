"""Build both modules beside this file, with a C compiler: python setup.py build_ext --inplace"""

from Cython.Build import cythonize
from setuptools import Extension, setup

import cpubn

OPENMP = {"extra_compile_args": ["-fopenmp"], "extra_link_args": ["-fopenmp"]}  # /openmp with Visual C++
FOLDERS = {"include_dirs": [cpubn.get_include()]}

setup(
    name="extension",
    ext_modules=cythonize(
        [Extension("in_cython", ["in_cython.pyx"], **FOLDERS, **OPENMP), Extension("in_c", ["in_c.c"], **FOLDERS)]
    ),
)
