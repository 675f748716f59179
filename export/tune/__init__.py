"""Which lowering is fastest on this machine."""
