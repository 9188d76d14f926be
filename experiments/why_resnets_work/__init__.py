"""Analyses of trained plain and residual nets, and why shortcuts help.

Each analysis has one file, which holds, in this order, its measurement (from a net to
rows), its figures, its section of the report and its lines of ``summary.csv``.
`registry` lists the analyses; `measurement` keeps their rows on disk.
"""
