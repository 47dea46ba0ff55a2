"""opo: which policy-gradient estimator is better on my model and my problems, by how much, and why."""

__version__ = "0.1.0"
