"""The page: one self-contained HTML file made from the plain data of a report (see README.md)."""
