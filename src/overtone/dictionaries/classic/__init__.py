"""Dictionaries that are fitted as a whole, without gradient steps."""
