"""Pickles that make a file when something unpickles them, and the archives in which they hide."""

from __future__ import annotations

import io
import pickle
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch


class Reduced:
    """Unpickled by calling something."""

    def __init__(self, call: Callable[..., Any], *arguments: Any) -> None:
        self.pair = call, arguments

    def __reduce__(self) -> Any:
        return self.pair


def _text(value: str) -> bytes:
    """The opcode that puts text on the stack."""
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def pickles(marker: Path) -> dict[str, bytes]:
    """Name -> a pickle that makes marker."""
    import functools
    import os
    import subprocess

    shell = f"touch {marker}"
    python = f"open({str(marker)!r}, 'w').close()"
    system = Reduced(os.system, shell)
    called = _text(shell) + b"\x85R."
    return {
        **{f"os.system, protocol {n}": pickle.dumps(system, protocol=n) for n in (0, 2, 4, 5)},
        "global posix system": b"\x80\x02cposix\nsystem\n" + called,
        "global os system": b"cos\nsystem\n" + called,
        "builtins eval": pickle.dumps(Reduced(eval, python), protocol=2),
        "builtins exec": pickle.dumps(Reduced(exec, python), protocol=2),
        "subprocess": pickle.dumps(Reduced(subprocess.call, ["touch", str(marker)]), protocol=2),
        "pathlib": pickle.dumps(Reduced(Path.touch, marker), protocol=4),
        "getattr chain": pickle.dumps(Reduced(getattr, Reduced(__import__, "os"), "system"), protocol=2)[:-1] + called,
        "partial": pickle.dumps(Reduced(functools.partial(os.system, shell)), protocol=2),
        "nested reduce": pickle.dumps([{"a": (1, [{"b": system}])}], protocol=2),
        "dict key": pickle.dumps({"global_step": 3, "x": system}, protocol=2),
        "inst opcode": b"(S" + repr(shell).encode() + b"\nios\nsystem\n.",
        "obj opcode": b"(cos\nsystem\n" + _text(shell) + b"o.",
        "memo": b"\x80\x02cos\nsystem\nq\x010h\x01" + called,
        "alias of a module": b"\x80\x04" + _text("torch.serialization") + _text("os.system") + b"\x93" + called,
        "alias of a function": b"\x80\x02ctorch._utils\n__builtins__\n0ctorch.serialization\n__name__\n0cos\nsystem\n"
        + called,
        "stack global": b"\x80\x04" + _text("os") + _text("system") + b"\x93" + called,
    }


def torch_archive(content: bytes, *, compressed: bool = False) -> bytes:
    """A zip as torch.save writes it, with this pickle in it."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED if compressed else zipfile.ZIP_STORED) as archive:
        archive.writestr("archive/data.pkl", content)
        archive.writestr("archive/byteorder", b"little")
        archive.writestr("archive/version", b"3\n")
    return out.getvalue()


def legacy_archive(content: bytes) -> bytes:
    """What torch.save wrote before it wrote zips: several pickles, one after another."""
    head = (0x1950A86A20F9469CFC6C, 1001, {"protocol_version": 1001, "little_endian": True, "type_sizes": {}})
    return b"".join(pickle.dumps(one, protocol=2) for one in head) + content + pickle.dumps([], protocol=2)


def tar_archive(content: bytes) -> bytes:
    """What torch.save wrote before that."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name in ("sys_info", "pickle", "storages", "tensors"):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return out.getvalue()


def torch_script() -> bytes:
    """A zip with compiled code: what torch.jit.load would run."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("archive/constants.pkl", pickle.dumps(()))
        archive.writestr("archive/data.pkl", b"\x80\x02c__torch__\nM\n)\x81.")
        archive.writestr("archive/code/__torch__.py", "class M(Module):\n  pass\n")
        archive.writestr("archive/version", b"3\n")
    return out.getvalue()


def object_array(content: bytes) -> bytes:
    """An .npy of Python objects, which np.load(allow_pickle=True) unpickles."""
    out = io.BytesIO()
    np.lib.format.write_array_header_1_0(out, {"descr": "|O", "fortran_order": False, "shape": (1,)})
    return out.getvalue() + content


def claimed_tensor() -> bytes:
    """An archive whose tensor claims 40 GB of a file of a few hundred bytes."""
    out = io.BytesIO()
    torch.save({"a": torch.arange(16.0)}, out)
    with zipfile.ZipFile(out) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    (name,) = [name for name in content if name.endswith("data.pkl")]
    numel = b"\x8a\x05" + (10**10).to_bytes(5, "little")
    content[name] = content[name].replace(b"K\x10tq", numel + b"tq").replace(b"K\x10\x85", numel + b"\x85")
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for one, data in content.items():
            archive.writestr(one, data)
    return out.getvalue()
