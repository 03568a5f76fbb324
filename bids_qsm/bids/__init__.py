"""BIDS in and out: the only place that knows a file's name."""
