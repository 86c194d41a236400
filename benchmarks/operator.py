"""What the operator costs and how fast it is: a real API server, etcd with fsync, the real KubeRay operator, pods by kwok.

    python benchmarks/operator.py [--quick] [--only M1,M3] [--repeats 3] [--runs 1000] [--write]

`--write` puts the table into benchmarks/README.md. `cluster.harness build` makes the programs, once.
"""

import sys

if __name__ == "operator":  # `benchmarks/` comes first on the path of the scripts beside this one, and they mean the standard library's
    here = sys.path.pop(0)
    del sys.modules["operator"]
    import operator  # noqa: F401

    sys.path.insert(0, here)

if __name__ == "__main__":
    root = sys.path.pop(0).rpartition("/")[0] or "."
    sys.path[:0] = [root, f"{root}/tests"]
    from benchmarks.operator_bench.command import main

    sys.exit(main())
