"""One protocol, one file per engine."""
