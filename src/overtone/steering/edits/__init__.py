"""The kinds of edit, one file each; the catalogue finds them.

Facts of every entry: `identity` and `example` are settings (as for the class) that do nothing, or something; `laws`
names what tests measure beside `conserves`; `needs` is "dictionary" for edits that go through one.
"""
