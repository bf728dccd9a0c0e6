"""Measurements of speed beside other implementations, one file each; `python -m launch.bench` runs them."""
