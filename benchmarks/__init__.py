"""One script per claim; each prints ratios measured side by side in one run."""
