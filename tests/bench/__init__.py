"""Benchmarks: ratios, measured side by side in one run. `./dev bench [NAME …]` runs them in the sandbox."""
