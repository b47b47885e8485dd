"""Population statistics of every norm of a network, over a data set that may be larger than memory."""
