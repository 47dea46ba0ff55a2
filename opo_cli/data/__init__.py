"""Problems, prompts, and the embedded task."""
