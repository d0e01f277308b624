"""Training in several processes, with the result of one.

`rows` splits each batch over the processes, `latents` the dictionary. What a process has of a training is its `Share`;
the loop, the objectives and the maintainers see the whole batch in either case, and know nothing of it.
"""
