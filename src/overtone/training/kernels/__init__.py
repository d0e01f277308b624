"""Sparse products with exact gradients: the few operations that training speed depends on.

Each has the signature of its plain reference in `reference.py` and must agree with it, values and gradients alike. A
faster implementation is one more module here, chosen by `dispatch.py`; `sparse.py` needs torch alone.
"""
