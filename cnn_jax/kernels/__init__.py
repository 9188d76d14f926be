"""What computes a convolution on this machine."""
