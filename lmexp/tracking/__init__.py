"""What a run leaves behind: rows of metrics and timings, a receipt, and a mirror on Weights & Biases."""
