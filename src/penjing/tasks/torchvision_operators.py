"""torchvision's operators, declared where its library can't bring them.

torchvision's wheels on PyPI are built for CUDA. With a CPU build of torch their library can't be
loaded, and `import torchvision` fails with "operator torchvision::nms does not exist". Declaring
them doesn't make them run, but the rest of torchvision works: models, transforms, and what
`torch.export` makes of them.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import torch

DECLARED: list[torch.library.Library] = []
"""Operators vanish with the library that declared them, so it is kept here."""
BOXES = "Tensor input, Tensor rois, float spatial_scale, int pooled_height, int pooled_width"
SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    f"roi_align({BOXES}, int sampling_ratio, bool aligned) -> Tensor",
    f"roi_pool({BOXES}) -> (Tensor, Tensor)",
    f"ps_roi_align({BOXES}, int sampling_ratio) -> (Tensor, Tensor)",
    f"ps_roi_pool({BOXES}) -> (Tensor, Tensor)",
    "deform_conv2d(Tensor input, Tensor weight, Tensor offset, Tensor mask, Tensor bias, "
    "int stride_h, int stride_w, int pad_h, int pad_w, int dilation_h, int dilation_w, "
    "int groups, int offset_groups, bool use_mask) -> Tensor",
)


def declare_missing() -> bool:
    """Declare torchvision's operators if it is installed and its library can't be loaded.

    `penjing` does so before it reads a task's file. In a script, call this before you import
    torchvision; or install torch and torchvision from one index, which needs nothing of this.

    Returns:
        Whether they were declared, by this call or an earlier one.

    >>> declare_missing() in (True, False)
    True
    """
    if DECLARED or "torchvision" in sys.modules:
        return bool(DECLARED)
    package = importlib.util.find_spec("torchvision")
    if package is None or package.origin is None or _is_loaded(Path(package.origin).parent):
        return False
    library = torch.library.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]
    for schema in SCHEMAS:
        library.define(schema)  # type: ignore[no-untyped-call]
    DECLARED.append(library)
    return True


def _is_loaded(folder: Path) -> bool:
    """Load torchvision's library, as its import does; False if there is none that can be loaded."""
    for file in (*folder.glob("_C*.so"), *folder.glob("_C*.pyd")):
        try:
            torch.ops.load_library(file)  # type: ignore[no-untyped-call]
        except (ImportError, OSError):
            continue
        return True
    return False
