"""The version of cpubn, for setup.py to read and for reports."""

__version__ = "0.1.0"
