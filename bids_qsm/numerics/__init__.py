"""The internal library: arrays in, arrays out.  No file, no BIDS, no ants."""
