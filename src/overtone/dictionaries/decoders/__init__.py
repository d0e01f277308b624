"""Decoders: from codes to a reconstruction."""
