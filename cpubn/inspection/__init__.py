"""What the numbers of batch norms tell: the health report, and python -m cpubn norms, which prints it of a file."""
