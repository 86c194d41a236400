"""The kernels of a GPU, run by Triton's interpreter on a CPU, against the written-out form.

The interpreter is chosen when Triton is imported, so the comparison has a process of its own.
"""

import os
import subprocess
import sys

import pytest

COMPARISONS = {
    "the gate": """
inner, weights = torch.randn(5, 2 * width), torch.rand(5)
torch.testing.assert_close(triton_kernels.gate(inner, weights), experts._gate(inner, weights))
""",
    "the gate's gradients": """
inner, weights, grad = torch.randn(5, 2 * width), torch.rand(5), torch.randn(5, width)
found, expected = (module(grad, inner, weights) for module in (triton_kernels.gate_backward, experts._gate_backward))
torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
""",
    "the join of two softmaxes, of which one lies in a longer tensor": """
heads = width // 16
own, seen, log_own, log_seen = torch.randn(7, heads, 16), torch.randn(7, heads, 16), torch.randn(heads, 11), torch.randn(heads, 7)
again, log_again = own.clone(), log_own.clone()
triton_kernels.join(own, log_own[:, 4:], seen, log_seen)
attention._join(again, log_again[:, 4:], seen, log_seen)
torch.testing.assert_close((own, log_own), (again, log_again))
""",
}


@pytest.mark.parametrize("width", [48, 1504], ids=["one block", "two blocks"])
@pytest.mark.parametrize("what", COMPARISONS)
def test_a_kernel_computes_what_is_written_out(what, width):
    pytest.importorskip("triton")
    start = f"import torch\nfrom prism_trainer.packed import attention, experts, triton_kernels\ntorch.manual_seed(0)\nwidth = {width}\n"
    run = subprocess.run(
        [sys.executable, "-c", start + COMPARISONS[what]], env={**os.environ, "TRITON_INTERPRET": "1"}, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr[-2000:]
