"""Which lowering a site gets: by rules, or by a plan that was made before."""
