"""The child: a Python process of our own that ends with its socket."""

from __future__ import annotations

import os
import subprocess
import sys

_CONFINED = {
    **dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1"),
    "CUDA_VISIBLE_DEVICES": "",
}


def start(module: str, descriptor: int, *, confined: bool = True) -> subprocess.Popen[bytes]:
    """Run a module in a new interpreter that imports what this one could, and inherits one open descriptor.

    Several threads must not be forked, and what they or a GPU take nobody could bound.

    Args:
        module: Its name; it is told the descriptor's number.
        descriptor: Of the socket that both talk over.
        confined: Whether it computes with one thread and without a GPU, and what it says on its standard error is for
            the caller to read; otherwise it says it where this process does.

    Raises:
        OSError: It cannot be started.
        ValueError: An environment variable or a path holds what no process can be given.
    """
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(os.path.abspath(each) for each in sys.path)}
    return subprocess.Popen(
        [sys.executable, "-P", "-m", module, str(descriptor)],
        pass_fds=[descriptor],
        env={**environment, **_CONFINED} if confined else environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE if confined else None,
        # Whatever a terminal sends is not for it. A session of its own would be a scheduling group of its own wherever
        # Linux groups processes by session (autogroup, sched(7)), and its priority counts within its group alone.
        process_group=0,
    )
