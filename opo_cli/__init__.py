"""opo: which policy-gradient estimator is better on my model and my problems, and by how much."""

__version__ = "0.1.0"
