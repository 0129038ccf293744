"""Benchmarks: ``python -m benchmarks`` measures our code beside alternatives; one table and one file per machine."""
