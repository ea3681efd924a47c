"""Backbones, decoders, heads and the files that hold their weights."""
