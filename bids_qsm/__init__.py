"""bids_qsm: R2* and susceptibility maps, deep-grey labels and tables from a BIDS dataset."""

__version__ = "0.1.0"
