"""Unpacks the wheels of a packed sglang: PACK SITE.

Says what it is as one line of JSON, or {"missing": why} where this Python or its torch is not the one that it was packed for. It is
done without pip, which not every machine with a torch has.
"""

import importlib.metadata
import json
import os
import platform
import re
import sys
import tarfile
import zipfile


class Missing(Exception):
    pass


def fits(name):
    """Whether this Python can load a wheel, by the tags in its name."""
    pythons, abis, platforms = name[: -len(".whl")].split("-")[-3:]
    here = sys.version_info[:2]
    if platforms != "any" and not any(p.endswith(platform.machine()) for p in platforms.split(".")):
        return False
    for tag in pythons.split("."):
        kind, version = re.fullmatch(r"([a-z]+)(\d*)", tag).groups()
        if kind == "py" and version.startswith("3"):
            return True
        if kind == "cp" and version[:1] == "3":
            of = (3, int(version[1:] or 0))
            if of == here or "abi3" in abis.split(".") and of <= here:
                return True
    return False


def metadata(wheel):
    name = next(n for n in wheel.namelist() if n.endswith(".dist-info/METADATA"))
    return wheel.read(name).decode()


def field(text, pattern):
    found = re.search(pattern, text, re.MULTILINE)
    return found and found.group(1)


def check_torch(sglang, needed):
    """That the torch of this Python is the one whose C++ interface the wheels were built for."""
    try:
        torch = importlib.metadata.version("torch")
    except importlib.metadata.PackageNotFoundError:
        raise Missing(f"this Python ({sys.executable}) has no torch; sglang {sglang} needs torch {needed}") from None
    if needed and torch.split("+")[0].split(".")[:2] != needed.split(".")[:2]:
        raise Missing(f"sglang {sglang} was built for torch {needed}, and this Python ({sys.executable}) has torch {torch}")
    return torch


def unpack(path, site):
    with zipfile.ZipFile(path) as wheel:
        for name in wheel.namelist():
            inner = re.match(r"[^/]+\.data/([^/]+)/(.+)", name)
            if not inner:
                wheel.extract(name, site)
            elif inner.group(1) in ("purelib", "platlib"):
                entry = wheel.getinfo(name)
                entry.filename = inner.group(2)
                wheel.extract(entry, site)


def main(pack, site):
    if not os.path.isdir(pack):
        raise Missing(f"{pack} is not a folder; make it with sglang's pack script")
    wheels = sorted(n for n in os.listdir(pack) if n.endswith(".whl"))
    ours = [n for n in wheels if n.startswith("sglang-")]
    if not ours:
        raise Missing(f"{pack} holds no sglang-*.whl; make it with sglang's pack script")
    kernels = os.path.join(pack, "sgl_kernel.tar.xz")
    if not os.path.isfile(kernels):
        raise Missing(f"{kernels} is missing; make it with sglang's pack script")
    for name in wheels:
        if not fits(name):
            here = f"Python {sys.version_info[0]}.{sys.version_info[1]} on {platform.machine()}"
            raise Missing(f"{name} does not fit {here} ({sys.executable})")
    with zipfile.ZipFile(os.path.join(pack, ours[0])) as wheel:
        text = metadata(wheel)
    version = field(text, r"^Version: (\S+)")
    torch = check_torch(version, field(text, r"^Requires-Dist: torch ?\(?==([0-9.]+)"))
    os.makedirs(site, exist_ok=True)
    for name in wheels:
        unpack(os.path.join(pack, name), site)
    with tarfile.open(kernels) as archive:
        if hasattr(tarfile, "data_filter"):
            archive.extractall(site, filter="data")
        else:
            archive.extractall(site)
    return {"sglang": version, "torch": torch, "wheels": len(wheels)}


try:
    print(json.dumps(main(*sys.argv[1:3])))
except Missing as why:
    print(json.dumps({"missing": str(why)}))
except (OSError, zipfile.BadZipFile, tarfile.TarError, StopIteration) as error:
    print(json.dumps({"missing": f"cannot unpack {sys.argv[1]}: {error or type(error).__name__}"}))
