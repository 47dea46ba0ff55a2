"""From run folders to tables. No torch."""
