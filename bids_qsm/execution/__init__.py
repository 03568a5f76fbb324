"""Restartable steps and the executors that run them."""
