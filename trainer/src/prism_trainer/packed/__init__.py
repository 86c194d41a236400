"""Many sequences in one row without padding: each prompt once, its responses after it. Pure torch; knows no engine."""
