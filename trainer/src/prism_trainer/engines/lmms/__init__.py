"""Stage evaluation of engine verl, on lmms-eval, vLLM and Ray (image eval). Nothing outside of this package imports lmms-eval.

    suite -> task folder -> lmms-eval's loop -> requests -> replicas draw -> rules mark -> record -> (local judge) -> rows

What is asked and how an answer is judged is `prism_trainer.evaluation`, as for engine local. Here is only who draws the answers.
"""
