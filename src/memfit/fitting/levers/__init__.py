"""Levers of `fit`, one file each, each with its class of numerics."""
