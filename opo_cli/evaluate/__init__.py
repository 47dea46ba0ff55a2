"""From a model and benchmarks to accuracies with error bars."""
