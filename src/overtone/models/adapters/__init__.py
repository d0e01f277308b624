"""One file per architecture family; each enrols a function `model -> Adapter` under its `model_types`."""
