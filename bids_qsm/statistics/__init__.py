"""Group numerics: arrays and data frames in, data frames out."""
