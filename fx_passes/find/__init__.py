"""Finds the convolutions that repeat one kernel. Each of the others is refused with a reason."""
