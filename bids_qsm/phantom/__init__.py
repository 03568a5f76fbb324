"""The digital head and its signal, for examples, tests and benchmarks."""
