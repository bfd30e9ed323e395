"""Writes vectors.txt: what MMA-Sim's models of tensor cores return for random and special operands.

    pip install mmasim==2.1.1 torch ninja
    python generate.py > vectors.txt

MMA-Sim: https://github.com/microsoft/MMA-Sim, arXiv 2511.10909.
"""

import random

import torch
from mmasim.nv_ptx.isa_mma import mma_shape_and_type
from mmasim.nv_ptx.sim import MMA, WGMMA

# Bits of storage, bits of fraction, bits of the exponent, whether there are infinities, unused low bits.
FORMATS = {
    "f32": (32, 23, 8, True, 0),
    "tf32": (32, 10, 8, True, 13),
    "f16": (16, 10, 5, True, 0),
    "bf16": (16, 7, 8, True, 0),
    "e5m2": (8, 2, 5, True, 0),
    "e4m3": (8, 3, 4, False, 0),
}
VIEWS = {
    "f32": (torch.int32, torch.float32),
    "tf32": (torch.int32, torch.float32),
    "f16": (torch.int16, torch.float16),
    "bf16": (torch.int16, torch.bfloat16),
    "e5m2": (torch.uint8, torch.float8_e5m2),
    "e4m3": (torch.uint8, torch.float8_e4m3fn),
}


def element(rng, name, kind):
    """Bits of one number: `near` one, `wide` over all exponents, or `special`."""
    bits, fraction, exponent, infinity, low = FORMATS[name]
    stored = fraction + low
    top = (1 << exponent) - 1
    bias = top >> 1
    if kind == "special" and rng.random() < 0.7:
        kind = rng.choice(["near", "wide"])
    if kind == "near":
        # Small spreads cancel, larger ones truncate.
        field = bias + rng.randint(-min(6, bias), 2)
    elif kind == "wide":
        field = rng.randint(0, top - infinity)
        if rng.random() < 0.2:
            field = 0
    else:
        pick = rng.random()
        if pick < 0.5:
            return rng.randint(0, 1) << (bits - 1)
        if pick < 0.8:
            return rng.randint(0, 1) << (bits - 1) | top << stored
        return rng.getrandbits(bits)
    value = rng.randint(0, 1) << (bits - 1) | field << stored | rng.getrandbits(stored)
    if not infinity and value & ((1 << (bits - 1)) - 1) == (1 << (bits - 1)) - 1:
        value ^= 1
    return value


def matrix(rng, name, kinds, length):
    return [[element(rng, name, kind) for _ in range(length)] for kind in kinds]


def tensor(name, rows):
    stored, view = VIEWS[name]
    bits = FORMATS[name][0]
    signed = bits > 8
    rows = [
        [v - (1 << bits) if signed and v >> (bits - 1) else v for v in row]
        for row in rows
    ]
    return torch.tensor(rows, dtype=stored).view(view)


def untensor(name, t):
    stored, _ = VIEWS[name]
    mask = (1 << FORMATS[name][0]) - 1
    return [[v & mask for v in row] for row in t.contiguous().view(stored).tolist()]


def text(name, rows):
    digits = FORMATS[name][0] // 4
    return "".join(f"{v:0{digits}x}" for row in rows for v in row)


def case(rng, arch, unit, simulator, shape, d, a, b):
    k = int(shape.split("k")[1])
    rows = ["near"] * 8 + ["wide"] * 5 + ["special"] * 3
    columns = ["near"] * 4 + ["wide"] * 3 + ["special"]
    am, bm = matrix(rng, a, rows, k), matrix(rng, b, columns, k)
    cm = []
    for _ in range(16):
        kinds = [rng.choice(["near", "near", "wide", "special"]) for _ in range(8)]
        cm.append([element(rng, d, kind) for kind in kinds])
    dm = untensor(d, simulator(tensor(a, am), tensor(b, bm).T, tensor(d, cm)))
    print("case", arch.split()[0], unit, shape, d, a, b)
    print(text(a, am), text(b, bm), text(d, cm), text(d, dm), sep="\n")


def main():
    rng = random.Random(1)
    print("# Made by generate.py with mmasim 2.1.1. Each case: architecture, instruction, shape, types of D, A and B, then")
    print("# four lines of hexadecimal bits: A (16 rows), B (8 columns), C and D (16 rows).")
    for arch, repeat in (("Ampere", 2), ("Ada Lovelace", 1), ("Hopper", 2)):
        for name in sorted(set(mma_shape_and_type[arch])):
            shape, d, a, b, c = name.split(".")
            fp8 = a in ("e4m3", "e5m2")
            if a == "f64" or d != c or not shape.startswith("m16n8") or (fp8 and shape != "m16n8k32"):
                continue
            for _ in range(2 if fp8 else repeat):
                case(rng, arch, "mma", MMA(arch, name), shape, d, a, b)
    fp8 = ("e4m3", "e5m2")
    types = [("k8", "f32", "tf32", "tf32"), ("k16", "f32", "f16", "f16"), ("k16", "f16", "f16", "f16"), ("k16", "f32", "bf16", "bf16")]
    types += [("k32", d, a, b) for d in ("f32", "f16") for a in fp8 for b in fp8]
    for k, d, a, b in types:
        for _ in range(2):
            case(rng, "Hopper", "wgmma", WGMMA("Hopper", f"m64n8{k}.{d}.{a}.{b}"), f"m64n8{k}", d, a, b)


main()
