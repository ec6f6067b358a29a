"""How a program of the user's own loads an ONNX file and runs it by an execution provider."""

from __future__ import annotations

from pathlib import Path

from penjing.runtimes.onnx.export import BATCH
from penjing.runtimes.onnx.session import CPU, FUSE_NO_INTEGERS, Provider
from penjing.runtimes.signature import Signature, settings_of, snippet


def loading(path: Path, signature: Signature, provider: Provider = CPU) -> str:
    """See `Runtime.loading`.

    >>> from penjing.runtimes.signature import TensorSpec
    >>> image = TensorSpec("image", ("batch", 3, 8, 8), "float32")
    >>> print(loading(Path("model.onnx"), Signature((image,), (TensorSpec("y", (), "float32"),))))
    import numpy
    import onnxruntime
    <BLANKLINE>
    providers = ["CPUExecutionProvider"]
    path = "model.onnx"
    session = onnxruntime.InferenceSession(path, providers=providers)
    image = numpy.zeros((1, 3, 8, 8), "float32")
    inputs = {
        "image": image,
    }
    results = session.run(None, inputs)
    y = results[0]
    """
    opened = [
        f'providers = ["{CPU.name}"]',
        f'path = "{path}"',
        "session = onnxruntime.InferenceSession(path, providers=providers)",
    ]
    imports = ["import numpy", "import onnxruntime"]
    if provider != CPU:
        opened = _by_provider(path, provider)
    if provider.plugin:
        imports.append(f"import {provider.plugin}")
    run = [*signature.fed(), "results = session.run(None, inputs)"]
    places = [str(place) for place in range(len(signature.outputs))]
    return snippet(imports, opened, signature.arrays(), run, signature.taken(places))


def _by_provider(path: Path, provider: Provider) -> list[str]:
    """As `Provider.open`, in lines."""
    lines = ["options = onnxruntime.SessionOptions()"]
    if not provider.integer_kernels:
        lines.append(f'options.add_session_config_entry("{FUSE_NO_INTEGERS}", "1")')
    if provider.one_by_one:
        lines.append(f'options.add_free_dimension_override_by_name("{BATCH}", 1)')
    lines += settings_of(provider.settings)
    lines += [f'path, name = "{path}", "{provider.name}"']
    if provider.plugin:
        return [
            *lines,
            f"library = {provider.plugin}.get_library_path()",
            "onnxruntime.register_execution_provider_library(name, library)",
            "devices = onnxruntime.get_ep_devices()",
            "devices = [device for device in devices if device.ep_name == name]",
            "options.add_provider_for_devices(devices, settings)",
            "session = onnxruntime.InferenceSession(path, options)",
        ]
    return [
        *lines,
        f'providers = [(name, settings), "{CPU.name}"]',
        "session = onnxruntime.InferenceSession(path, options, providers=providers)",
    ]
