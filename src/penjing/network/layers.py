"""The operators that are layers: a weight, an input, a bias if there is one, in that order."""

from __future__ import annotations

import torch

aten = torch.ops.aten
CONVOLUTIONS = {
    aten.conv1d.default,
    aten.conv2d.default,
    aten.conv3d.default,
    aten.conv1d.padding,
    aten.conv2d.padding,
    aten.conv3d.padding,
}
LAYERS = CONVOLUTIONS | {aten.linear.default}
