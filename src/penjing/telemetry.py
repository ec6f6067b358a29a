"""Telemetry: no runtime reports to its vendor, for they are told so before they are imported.

A network that someone compresses is theirs alone. Yet, as installed from PyPI,

- ONNX Runtime, from 1.29 on, keeps an identifier of the machine and sends names of the models that
  it loads to Microsoft (`Privacy.md` in its package), from a thread that is still at work when a
  process ends. `ORT_DISABLE_TELEMETRY=0` in the environment keeps it on;
- OpenVINO keeps an identifier and sends to Google Analytics that it was imported, by
  `openvino_telemetry`, without which it goes on as well.
"""

import os
import sys

SWITCH = "ORT_DISABLE_TELEMETRY"

if SWITCH not in os.environ:
    os.environ[SWITCH] = "1"  # for what is imported from now on, in child processes too
    if imported := sys.modules.get("onnxruntime"):
        imported.disable_telemetry_events()  # what of it can still be stopped
if "openvino_telemetry" not in sys.modules:
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]  # to import it fails
