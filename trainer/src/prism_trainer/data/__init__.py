"""Data sets as rows of typed values. Readers name file, row and column when something is wrong."""
