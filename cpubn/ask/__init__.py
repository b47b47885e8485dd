"""What is asked for: it is checked, refused in words, and planned for the kernels."""
