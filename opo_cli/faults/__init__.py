"""Faults caused on purpose, in real processes: what a run is worth after them."""
