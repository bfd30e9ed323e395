"""The whole of the script: what is asked, and what is answered.

Reads {"device": ordinal, "seconds": limit, "l2_bytes": n, "tasks": [...]} from standard input. The first lines of the answer say
what torch this is, and what Triton where a task needs it; each line after them is about one task: its times in µs, or why there are
none.
"""

import json
import sys
import time


def needs_triton(task):
    return task["task"] == "triton_product" or task.get("compiled", False)


def main():
    asked = json.load(sys.stdin)
    deadline = time.monotonic() + asked["seconds"]
    try:
        import torch
    except Exception as error:
        return say(missing=f"this Python ({sys.executable}) cannot import torch: {error}")
    try:
        if not torch.cuda.is_available():
            return say(missing=f"torch {torch.__version__} finds no GPU that it can use")
        torch.cuda.set_device(asked["device"])
        torch.manual_seed(1)
        say(torch=torch.__version__, device=torch.cuda.get_device_name())
    except Exception as error:
        return say(missing=f"torch cannot use the GPU: {error}")
    without_triton = None
    if any(needs_triton(task) for task in asked["tasks"]):
        try:
            import triton

            say(triton=triton.__version__)
        except Exception as error:
            without_triton = f"this Python cannot import triton: {error}"
    for task in asked["tasks"]:
        if time.monotonic() > deadline:
            say(id=task["id"], error="no time is left")
            continue
        if without_triton and needs_triton(task):
            say(id=task["id"], error=without_triton)
            continue
        do = {"attention": attention, "decode_step": decode_step, "triton_product": triton_product}[task["task"]]
        try:
            with torch.no_grad():
                say(id=task["id"], **do(torch, task, asked["l2_bytes"]))
        except Exception as error:
            say(id=task["id"], error=" ".join(f"{type(error).__name__}: {error}".split()))
        torch.cuda.empty_cache()


main()
