"""Training one run: from a config to a finished run directory."""
