"""Presets: one small file per published method; the catalogue finds them."""
