"""What is fast, against what, in one run: ``python -m benchmarks``, one table and one file a machine."""
