"""What a stage `evaluation` measures: benchmarks as data, judges, and the statistics of the answers.

    tasks -> suite -> (engine draws responses) -> verdicts by rules and judge -> record -> scores -> resampling -> rows

A task is one of the paper's seven benchmarks. Each gets the same system prompt and the same kind of question (`problems`); only how a row
is read and which sub-scores it has is its own.
"""
