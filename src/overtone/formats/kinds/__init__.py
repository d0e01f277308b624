"""One file per format; each enrols itself and nothing else has to be edited."""
