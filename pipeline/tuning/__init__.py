"""The loop that moves the thresholds along the gradient."""
