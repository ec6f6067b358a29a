"""penjing: from a trained PyTorch network to the smaller file that runs best on a device."""

import penjing.telemetry  # noqa: F401  first, for it counts on being early
from penjing.contract import Artifact, Measurement, Plan
from penjing.errors import InputError, MachineError, PenjingError
from penjing.network import Network, capture, find_axes, restore, save
from penjing.passes import Compensate, Merge, Pass, PruneChannels, Quantize, Tune
from penjing.runtimes.onnx.runtime import OnnxRuntime
from penjing.search.fit import fit
from penjing.search.options import FitOptions
from penjing.targets import Target
from penjing.tasks.data import Arrays, image_folder, npz
from penjing.tasks.task import Metric, Task
from penjing.tools.bench import bench
from penjing.tools.profile import profile
from penjing.trials.result import Result
from penjing.tune.options import TuneOptions
from penjing.version import __version__ as __version__

__all__ = [
    "Arrays",
    "Artifact",
    "Compensate",
    "FitOptions",
    "InputError",
    "MachineError",
    "Measurement",
    "Merge",
    "Metric",
    "Network",
    "OnnxRuntime",
    "Pass",
    "PenjingError",
    "Plan",
    "PruneChannels",
    "Quantize",
    "Result",
    "Target",
    "Task",
    "Tune",
    "TuneOptions",
    "bench",
    "capture",
    "find_axes",
    "fit",
    "image_folder",
    "npz",
    "profile",
    "restore",
    "save",
]
