"""Graph transformer networks that read lines of digits: training, reading, figures."""
