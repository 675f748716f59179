"""How long things take beside each other, and what may be said of it."""
