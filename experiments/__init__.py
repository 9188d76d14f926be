"""Commands: train, degradation and their companions."""
