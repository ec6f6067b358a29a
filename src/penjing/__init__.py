"""penjing: from a trained PyTorch network to the smaller file that runs best on a device.

    result = penjing.fit("digits", max_drop=1.0)     search for the best file
    print(result.chosen, result.artifact)

    network = penjing.capture(model, example)         or compose it by hand
    recipe = penjing.Recipe([penjing.passes.PruneChannels(0.5), penjing.passes.Tune()])
    proof = penjing.export(recipe(network, task), task, "litert", "int8")
    print(proof)
    print(proof.loading)

What you bring
    Task            a trained model, an example of its inputs, data, a loss and a metric
    find_task       the task that a text names: "digits", "mytask.py", "mytask.py:small"
    Metric          a figure of merit, a mean over samples or one figure of all
    detection       boxes, and the mean average precision of detectors
    Arrays          data in memory, in batches
    npz             the same, from a file of NumPy's
    ImageFolder     images in a folder for each class, decoded as they are needed

Networks and methods
    capture         make a Network of a model, by torch.export
    Network         the captured graph: an nn.Module that can be called, trained and cut
    save, restore   a network on disk, without pickle
    passes          the methods: PruneChannels, Quantize, Tune and nine others
    Plan            what a pass decided, before anything is changed
    Recipe          passes in order, applied to a network

Files for devices
    runtimes        ONNX Runtime, OpenVINO, ExecuTorch, LiteRT, Ethos-U and others
    export          write a network as a runtime's file, and prove the file
    ExportOptions   all else that an export may be told
    Proof           what a file is, and how it compares with the model
    verify          check a file against its record, and run it on the test data
    bench           time files side by side
    profile         where parameters, memory and time go, layer by layer
    Target          a device

The search
    advise          which methods pay for a network on a device, before any training
    fit             find the best file for a device, within a budget of accuracy
    FitOptions      all else that a fit may be told
    Result          all that a fit measured, its answer, and the reasons

Errors
    PenjingError    every error that is not a bug of penjing's: one line that says what to do
    InputError, UnsafeError, MachineError, DivergenceError, RemoteError
                    what you gave; a file not to be trusted; this machine; a file that computes
                    something else than its network; a device

The documentation has a guide for each of these; `penjing --help` tells of the command line.
"""

import penjing.telemetry  # noqa: F401  it must come before what reports to its vendor
from penjing import passes as passes
from penjing import runtimes as runtimes
from penjing.contract import Plan as Plan
from penjing.errors import DivergenceError as DivergenceError
from penjing.errors import InputError as InputError
from penjing.errors import MachineError as MachineError
from penjing.errors import PenjingError as PenjingError
from penjing.errors import RemoteError as RemoteError
from penjing.errors import UnsafeError as UnsafeError
from penjing.network import Network as Network
from penjing.network import capture as capture
from penjing.network import restore as restore
from penjing.network import save as save
from penjing.search.advice.advise import advise as advise
from penjing.search.fit import fit as fit
from penjing.search.options import FitOptions as FitOptions
from penjing.targets import Target as Target
from penjing.tasks import detection as detection
from penjing.tasks.data import Arrays as Arrays
from penjing.tasks.data import npz as npz
from penjing.tasks.metrics import Metric as Metric
from penjing.tasks.reading.images import ImageFolder as ImageFolder
from penjing.tasks.reference import find_task as find_task
from penjing.tasks.task import Task as Task
from penjing.tools.bench import bench as bench
from penjing.tools.export import ExportOptions as ExportOptions
from penjing.tools.export import export as export
from penjing.tools.export import verify as verify
from penjing.tools.profile import profile as profile
from penjing.tools.proof import Proof as Proof
from penjing.trials.recipe import Recipe as Recipe
from penjing.trials.result import Result as Result
from penjing.version import __version__ as __version__
