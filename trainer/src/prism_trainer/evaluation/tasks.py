"""The seven benchmarks of the paper by name. Our names: none is shadowed by a task of another evaluator (defect D1)."""

from __future__ import annotations

from prism_trainer.contract.configs import Benchmark
from prism_trainer.evaluation.hallusionbench import HALLUSIONBENCH
from prism_trainer.evaluation.mathverse import MATHVERSE
from prism_trainer.evaluation.mathvision import MATHVISION
from prism_trainer.evaluation.mathvista import MATHVISTA
from prism_trainer.evaluation.mmmu import MMMU, MMMU_PRO
from prism_trainer.evaluation.task import Task
from prism_trainer.evaluation.wemath import WEMATH

TASKS: dict[Benchmark, Task] = {task.name: task for task in (MATHVISTA, MATHVERSE, MATHVISION, WEMATH, MMMU, MMMU_PRO, HALLUSIONBENCH)}
