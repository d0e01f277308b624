"""Selections: which latents are active."""
