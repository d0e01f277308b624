"""The verbs, one line each: all that `overtone --help` needs, so that it imports nothing else."""

VERBS = {
    "discover": "find a model's reasoning vectors, and prove that they steer it",
    "collect": "compute a model's states over texts or traces once, and keep them",
    "train": "train a dictionary on stored states",
    "convert": "a dictionary into another library's format, or from it",
    "compare": "kinds of dictionary side by side on the same states",
    "evaluate": "how good a dictionary is: error, sparsity, lengths, and its model's predictions",
    "study": "re-run one paper's claims with the library's own parts",
    "studies": "the scoreboard: every study, and what it found when it was last run here",
    "list": "what there is: dictionaries, edits, studies, formats, sites or adapters",
    "version": "versions of overtone and of what it stands on",
}
"""Verb -> one line. A verb is the file of the same name in this folder; a test compares the two."""


def overview() -> str:
    """What `overtone --help` prints."""
    width = max(map(len, VERBS))
    lines = [f"  {verb:<{width}}  {line}" for verb, line in VERBS.items()]
    return "\n".join(
        [
            "usage: overtone VERB [--help] ...",
            "",
            "Decompose what a neural network computes into directions, name them, turn them up or down, and prove it.",
            "",
            *lines,
            "",
            "`overtone VERB --help` explains a verb and shows an example. Every verb takes --json (one JSON document",
            "on standard output, progress on standard error) and --quiet (no progress). Exit codes: 0 done, 2 a",
            "mistake in what was asked, 130 interrupted, 1 a fault of overtone.",
        ]
    )
