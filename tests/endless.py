"""An answer that keeps a grader's worker busy for longer than any test waits, on any machine."""

ENDLESS = (
    r"\int_0^1 \int_0^1 \int_0^1 \int_0^1 \int_0^1 \int_0^1 \sin(\cos(x+y+z+t+u+v))"
    " dx dy dz dt du dv"
)
"""No screen refuses it, and it takes no memory. Every further integral takes far longer than the
one before: one took 0.6 s, two 3 s, three 150 s; here are six."""
