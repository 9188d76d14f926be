"""Benchmarks of this package, and of the same networks in other frameworks."""
