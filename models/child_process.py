"""The child: a Python process of our own that computes with one thread, without a GPU, and ends with its socket."""

from __future__ import annotations

import os
import subprocess
import sys


def start(module: str, descriptor: int) -> subprocess.Popen[bytes]:
    """Run a module in a new interpreter that imports what this one could, and inherits one open descriptor.

    Several threads must not be forked, and what they or a GPU take nobody could bound.

    Args:
        module: Its name; it is told the descriptor's number.
        descriptor: Of the socket that both talk over.

    Raises:
        OSError: It cannot be started.
        ValueError: An environment variable or a path holds what no process can be given.
    """
    environment = {
        **os.environ,
        **dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1"),
        "CUDA_VISIBLE_DEVICES": "",
        "PYTHONPATH": os.pathsep.join(os.path.abspath(each) for each in sys.path),
    }
    return subprocess.Popen(
        [sys.executable, "-P", "-m", module, str(descriptor)],
        pass_fds=[descriptor],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        # Whatever a terminal sends is not for it. A session of its own would be a scheduling group of its own wherever
        # Linux groups processes by session (autogroup, sched(7)), and its priority counts within its group alone.
        process_group=0,
    )
