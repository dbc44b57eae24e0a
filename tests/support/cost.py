"""What work costs on this machine: bounds made of it hold on slow machines and on quick ones."""

import time

from fabric.attest.keys import Kem
from fabric.seal.hpke import HpkeKey, wrap


def wraps_cpu_s(count: int) -> float:
    """Processor seconds of `count` wraps to one `hybrid` key, and of nothing else."""
    key, secret = HpkeKey.generate(Kem.MLKEM768_X25519).public, bytes(32)
    began = time.process_time()
    for _ in range(count):
        wrap(key, secret, b"info")
    return time.process_time() - began
