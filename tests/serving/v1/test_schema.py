from __future__ import annotations

import subprocess
import sys


def test_wire_types_and_settings_need_no_torch() -> None:
    code = (
        "import sys, serving.v1.schema, serving.v1.decode, serving.settings, serving.cli; "
        "assert 'torch' not in sys.modules and 'fastapi' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
