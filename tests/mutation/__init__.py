"""Single-line mutants of the code, tried against its tests; run by hand."""
