"""The formulas that every backend computes by, and the order of its sums: NumPy alone."""
