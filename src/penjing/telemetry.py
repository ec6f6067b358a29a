"""Telemetry: turned off in all runtimes, before they are imported.

Networks may be confidential, so nothing about them should leave the machine. But two runtimes, as
installed from PyPI, report their use:

- ONNX Runtime 1.29 and later stores an identifier of the machine, and sends the names of the models
  that it loads to Microsoft (`Privacy.md` in its package). It does so from a thread that still runs
  when a process ends. Set `ORT_DISABLE_TELEMETRY=0` in the environment to keep it on.
- OpenVINO stores an identifier, and reports to Google Analytics that it was imported. It uses the
  package `openvino_telemetry` for that, and works without it too.
"""

import os
import sys

SWITCH = "ORT_DISABLE_TELEMETRY"

if SWITCH not in os.environ:
    os.environ[SWITCH] = "1"  # for imports from now on, also in child processes
    if imported := sys.modules.get("onnxruntime"):
        imported.disable_telemetry_events()  # stops what can still be stopped
if "openvino_telemetry" not in sys.modules:
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]  # makes its import fail
