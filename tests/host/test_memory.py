"""What glibc does with freed memory, in a process of its own."""

import platform
import subprocess
import sys

import pytest

from tvilfm_plugin.host import memory

CODE = """
import resource, sys
import numpy as np
from tvilfm_plugin.host.memory import keep_freed_memory

def faults():
    # More than glibc keeps by itself.
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    np.empty(64 << 20, np.uint8).fill(1)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

faults()
returned = faults()
said = keep_freed_memory()
faults()
print(said, returned, faults())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another allocator")
def test_freed_memory_is_not_asked_for_again():
    ended = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    said, returned, kept = ended.stdout.split()
    assert said == "True" and int(kept) < int(returned) / 10


def test_elsewhere_nothing_is_called(monkeypatch):
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    monkeypatch.setattr(memory.ctypes, "CDLL", None)
    assert memory.keep_freed_memory() is False
