"""What the machine has: CPUs, and instruction sets to compile for. It imports nothing of the package."""
