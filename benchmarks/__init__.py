"""One script for each question; `python -m benchmarks` runs them and renders docs/benchmarks.md."""
