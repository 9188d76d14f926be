"""Single-line mutants of the code, tested against its tests; run manually."""
