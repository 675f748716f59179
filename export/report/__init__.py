"""What was found, done and measured: as data, as JSON, as text."""
