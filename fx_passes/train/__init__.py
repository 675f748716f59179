"""The modules that hold one kernel for all groups, and what training them needs."""
