"""Which lowering a site gets: by static rules, or by a plan."""
