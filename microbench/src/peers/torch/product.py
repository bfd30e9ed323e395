"""Times a matrix multiplication in Triton."""

import math
import os
import tempfile

# Triton compiles functions from their source, which must lie in a file.
TRITON = '''
import triton
import triton.language as tl


@triton.autotune(
    configs=[
        triton.Config({"BLOCK_M": m, "BLOCK_N": n, "BLOCK_K": k}, num_warps=warps, num_stages=stages)
        for m, n, k, warps, stages in [
            (16, 32, 128, 4, 4), (16, 64, 128, 4, 4), (16, 128, 64, 4, 4), (32, 64, 128, 4, 4), (64, 64, 64, 4, 4),
            (64, 128, 64, 4, 4), (128, 64, 64, 4, 4), (128, 128, 64, 8, 3), (128, 256, 64, 8, 3), (256, 128, 64, 8, 3),
        ]
    ],
    key=["M", "N", "K"],
)
@triton.jit
def product(x, weight, out, M, N, K, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr):
    # Eight rows of blocks at a time, so that they find each other's weights in L2.
    group = 8
    block = tl.program_id(0)
    rows, columns = tl.cdiv(M, BLOCK_M), tl.cdiv(N, BLOCK_N)
    first = block // (group * columns) * group
    size = min(rows - first, group)
    row = first + block % (group * columns) % size
    column = block % (group * columns) // size
    m = (row * BLOCK_M + tl.arange(0, BLOCK_M)) % M
    n = (column * BLOCK_N + tl.arange(0, BLOCK_N)) % N
    k = tl.arange(0, BLOCK_K)
    xs = x + m[:, None] * K + k[None, :]
    weights = weight + n[None, :] * K + k[:, None]
    sums = tl.zeros((BLOCK_M, BLOCK_N), dtype=tl.float32)
    for i in range(0, tl.cdiv(K, BLOCK_K)):
        left = K - i * BLOCK_K
        a = tl.load(xs, mask=k[None, :] < left, other=0.0)
        b = tl.load(weights, mask=k[:, None] < left, other=0.0)
        sums = tl.dot(a, b, sums)
        xs += BLOCK_K
        weights += BLOCK_K
    m = row * BLOCK_M + tl.arange(0, BLOCK_M)
    n = column * BLOCK_N + tl.arange(0, BLOCK_N)
    tl.store(out + m[:, None] * N + n[None, :], sums.to(tl.bfloat16), mask=(m[:, None] < M) & (n[None, :] < N))
'''


def triton_kernel():
    """The kernel, out of a file in a folder that goes with the process."""
    if not hasattr(triton_kernel, "module"):
        import importlib.util

        triton_kernel.folder = tempfile.TemporaryDirectory()
        path = os.path.join(triton_kernel.folder.name, "product.py")
        with open(path, "w") as file:
            file.write(TRITON)
        spec = importlib.util.spec_from_file_location("product", path)
        triton_kernel.module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(triton_kernel.module)
    return triton_kernel.module.product


def triton_product(torch, of, l2_bytes):
    kernel = triton_kernel()
    m, n, k = of["m"], of["n"], of["k"]
    copies = copies_of(torch, 2 * (m * k + n * k + m * n), l2_bytes)

    def random(*shape):
        return torch.rand(*shape, device="cuda", dtype=torch.bfloat16) * 2 - 1

    inputs = [(random(m, k), random(n, k), random(m, n)) for _ in range(copies)]

    def grid(meta):
        return (math.ceil(m / meta["BLOCK_M"]) * math.ceil(n / meta["BLOCK_N"]),)

    def launch(index):
        x, weight, out = inputs[index % copies]
        kernel[grid](x, weight, out, m, n, k)

    # The first launch tries the configurations out.
    launch(0)
    torch.cuda.synchronize()
    x, weight, out = inputs[0]
    expected = torch.nn.functional.linear(x, weight)
    if not torch.allclose(out, expected, rtol=0.05, atol=0.05 * k**0.5):
        raise RuntimeError("its results differ from torch's")
    return launch_times(torch, launch, copies)
