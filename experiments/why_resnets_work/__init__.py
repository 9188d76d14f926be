"""What trained plain and residual nets look like inside, and why shortcuts help.

One file an analysis, which holds, in this order, what it measures (nets to rows),
its figures, its section of the report and its main numbers. `registry` lists them.
What they share: `measurement` (rows kept on disk), `pool` (processes), `tables` and
`claims` (numbers of several seeds), `drawing`, and `page` (the report).
"""
