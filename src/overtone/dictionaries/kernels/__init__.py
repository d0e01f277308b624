"""What training speed depends on: sparse products with exact gradients, and selection fused with the product.

Each kernel has the signature of its plain reference (`reference.py`, `Autoencoder.choose`) and must agree with it,
values and gradients alike. `dispatch.py` chooses: `sparse.py` needs torch alone, `native.py` a C compiler at first use,
`triton_sparse.py` a GPU.
"""
