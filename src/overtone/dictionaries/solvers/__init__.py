"""Codes that are solved for instead of encoded: pursuits and non-negative least squares on given atoms."""
