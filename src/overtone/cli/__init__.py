"""The command line: a thin edge around the library, one file per verb.

A verb's file holds `Options` (a frozen class: its fields are the options, its docstring the help), `run(options)`, one
call into the library that returns plain data, and `show(data, console)`, which prints that data for people. Where the
options depend on one of the words, `options_for(words)` gives the class and `in_order(words)` puts that word first;
`RESUME` says what to do after Ctrl-C.
"""

from overtone.cli._edge import main

__all__ = ["main"]
