"""Encoders: from a state to pre-activations."""
