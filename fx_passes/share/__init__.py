"""The pass that keeps one kernel for all groups, and its inverse."""
