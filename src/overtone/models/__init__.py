"""Hugging Face models with named sites: reading, editing, cached decoding."""
