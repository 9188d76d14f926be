"""How fast a train step is: ours, and the same nets in other frameworks."""
