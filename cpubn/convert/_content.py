"""What a file is, by its content: its name may say anything."""

from __future__ import annotations

import os
import zipfile

from cpubn.ask.files import ARCHIVE

TORCH_MAGIC = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # the number that torch pickled first, before its files were archives
HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"
HEAD = 1 << 16  # bytes that are looked at

ARRAYS, TORCH, SCRIPT, KERAS, HDF5 = "npz", "torch", "torchscript", "keras", "hdf5"
SAFETENSORS, ZIP, TAR, PICKLE, LITE, OTHER = "safetensors", "zip", "tar", "pickle", "tflite", "other"

# What to say of each, and what reads it.
KINDS = {
    ARRAYS: (ARCHIVE, "from_npz"),
    TORCH: ("a file of torch.save", "from_torch"),
    SCRIPT: ("a TorchScript program", "from_torch"),
    KERAS: ("a .keras file", "from_keras"),
    HDF5: ("an HDF5 file", "from_keras"),
    SAFETENSORS: ("a .safetensors file", "from_safetensors"),
    ZIP: ("a zip archive of other files", None),
    TAR: ("a tar archive", None),
    PICKLE: ("a pickle", None),
    LITE: ("a TensorFlow Lite model", None),
    OTHER: ("an ONNX model", None),  # or anything else
}


def content_of(path: str) -> str:
    """Which of KINDS a file is; OTHER is what has no mark, as ONNX has none."""
    with open(path, "rb") as file:
        head, size = file.read(HEAD), os.fstat(file.fileno()).st_size
    if head.startswith(b"PK\3\4"):
        return _archive(path)
    if head.startswith(HDF5_MAGIC):
        return HDF5
    if TORCH_MAGIC in head[:32]:
        return TORCH
    if head[257:262] == b"ustar":
        return TAR
    if head[4:8] == b"TFL3":
        return LITE
    if head[8:9] == b"{" and 2 <= int.from_bytes(head[:8], "little") <= size - 8:
        return SAFETENSORS
    if head[:1] == b"\x80" and head[1:2] in (b"\2", b"\3", b"\4", b"\5"):
        return PICKLE
    return OTHER


def _archive(path: str) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except Exception:  # a damaged one; who reads it says how
        return ZIP
    files = {name.rpartition("/")[2] for name in names}
    if "data.pkl" in files:
        return SCRIPT if "constants.pkl" in files else TORCH
    if "config.json" in names:
        return KERAS
    return ARRAYS if names and all(name.endswith(".npy") for name in names) else ZIP
