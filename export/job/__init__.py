"""The stages of one optimization: each returns a frozen record, which the next one takes."""
