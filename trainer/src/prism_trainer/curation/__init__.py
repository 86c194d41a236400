"""`prism data`: data sets are checked, filtered by difficulty, and paired with a student's responses. None of it is part of a run."""
