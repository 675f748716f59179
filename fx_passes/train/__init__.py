"""The modules that hold one kernel for all groups, and the tools for training them."""
