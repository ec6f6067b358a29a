"""A timm model and folders of images, named on the command line.

    penjing fit timm_model.py --task-arg architecture=resnet18 --task-arg images=FOLDER
        --task-arg checkpoint=best.pth

FOLDER has the folders `train`, `validation` and `test`. Each of these has a folder of images for
every class. The example needs timm: `pip install timm`.
"""

from pathlib import Path

import timm
import timm.data

import penjing


def task(
    images: str, architecture: str = "mobilenetv3_small_100", checkpoint: str | None = None
) -> penjing.Task:
    """The network, with the weights that you trained, and the images that it was trained on.

    Args:
        images: a folder with `train`, `validation` and `test`; each has a folder for every class.
        architecture: a model's name, as `timm.list_models()` has it.
        checkpoint: a file of weights. Without one, timm downloads weights for ImageNet, whose 1,000
            classes the folders must have then.
    """
    classes = sum(entry.is_dir() for entry in Path(images, "train").iterdir())
    if checkpoint is None:
        model = timm.create_model(architecture, pretrained=True)
    else:
        model = timm.create_model(
            architecture, pretrained=False, num_classes=classes, checkpoint_path=checkpoint
        )
    wants = timm.data.resolve_model_data_config(model)
    size = wants["input_size"][1:]

    def split(name: str, augment: str | None = None) -> penjing.ImageFolder:
        return penjing.ImageFolder(
            Path(images, name), size=size, crop=wants.get("crop_pct"), mean=wants["mean"],
            std=wants["std"], augment=augment, shuffle=augment is not None,
        )  # fmt: skip

    train, validation, test = split("train", "flip-crop"), split("validation"), split("test")
    example, _ = next(iter(test))
    return penjing.Task(
        model.eval(), example[:2], train, test, validation=validation, name=architecture
    )
