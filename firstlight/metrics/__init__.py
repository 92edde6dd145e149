"""What is measured: totals that stay on the device, and all that follows from the confusion matrix."""
