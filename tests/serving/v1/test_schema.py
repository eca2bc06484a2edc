from __future__ import annotations

import subprocess
import sys


def test_wire_types_and_settings_need_no_torch() -> None:
    code = (
        "import sys, dubio.serving.v1.schema, dubio.serving.v1.decode, dubio.serving.settings, dubio.serving.cli; "
        "assert 'torch' not in sys.modules and 'fastapi' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
