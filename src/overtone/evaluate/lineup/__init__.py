"""All kinds of dictionary on one set of activations, at equal width and sparsity: `lineup`, its table and its page."""
