"""Images: one folder per class, whose images are decoded batch by batch when they are needed.

Pillow decodes them, on every machine alike: two decoders of JPEG differ in the last bits of pixels.
Augmentations may be torchvision's (`torchvision.transforms.v2`), or any other functions of images.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from penjing.errors import InputError, in_one_line
from penjing.tasks.reading.indexed import NAMED, Indexed, require_batch_size
from penjing.tasks.task import Batches, Inputs

IMAGE_ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".ppm", ".pgm", ".tif", ".tiff")
KEPT_BYTES = 200_000_000
"""Images that take up to so much memory as uint8 are decoded once; CIFAR-10's take 154 MB."""
Function = Callable[[Any], Any]
"""A function of an image of Pillow's, that returns such an image or a tensor of shape (C, H, W)."""


@dataclass(eq=False, repr=False)
class ImageFolder(Indexed):
    """Images in one folder per class, such as `train/cat/0001.jpg`, read batch by batch.

    A batch holds inputs x_NCHW as float32, in RGB and from 0 to 1 before they are normalized, and
    classes y_N as int64. The classes are numbered in the order of their folders' names. Images in
    folders within a class's folder belong to that class.

    Only the files' names are read at once. The images are decoded when a batch is needed. If all
    of them take up to 200 MB as uint8, they are kept in memory from then on.

    >>> import penjing, tempfile
    >>> from PIL import Image
    >>> folder = tempfile.TemporaryDirectory()
    >>> for name in ("cat", "dog"):
    ...     Path(folder.name, name).mkdir()
    ...     Image.new("RGB", (8, 6)).save(f"{folder.name}/{name}/0.png")
    >>> images = penjing.ImageFolder(folder.name, size=(12, 16))
    >>> images.classes, images.samples, images.y
    (('cat', 'dog'), 2, tensor([0, 1]))
    >>> x, y = next(iter(images))
    >>> x.shape
    torch.Size([2, 3, 12, 16])
    >>> folder.cleanup()

    Args:
        path: the folder that holds the folders of classes.
        size: (height, width) in pixels to which every image is scaled (bicubic), or one number for
            both. None expects images of one size.
        crop: the share of the shorter side that is cut out of an image's middle before it is
            scaled, from above 0 to 1; what is cut out has the shape of `size`. ImageNet's usual 224
            of 256 pixels is 0.875. None squeezes the whole image.
        transform: a function that is called with each image (of Pillow's, in RGB) in place of
            scaling it. It returns such an image or a tensor of shape (C, H, W), the same each time.
        mean, std: one number per channel, to normalize each batch with.
        augment: `"flip-crop"` (flip horizontally and shift by up to 4 pixels), `"crop"` (shift
            only), or None. Or a function as `transform` is, which takes its place in training, such
            as a `torchvision.transforms.v2.Compose`; it may draw from torch's global random state.
        batch_size: samples per batch. A last batch of one sample joins the batch before it.
        shuffle: whether each pass has a new order, drawn from torch's global random state.
        num_workers: how many processes decode, as in a `DataLoader`; 0 decodes in this one.

    Raises:
        InputError: an option is out of range, or the folder has no classes or no images. While it
            is read: an image can't be decoded, the sizes differ, or a function of yours raises.

    Attributes:
        classes: the names of the classes, by their numbers.
        y: the class of each image.
    """

    path: Path | str
    size: int | tuple[int, int] | None = None
    _: KW_ONLY
    crop: float | None = None
    transform: Function | None = None
    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None
    augment: str | Function | None = None
    batch_size: int = 64
    shuffle: bool = False
    num_workers: int = 0
    classes: tuple[str, ...] = field(init=False)
    y: Tensor = field(init=False)

    def __post_init__(self) -> None:
        self._require_possible()
        if isinstance(self.size, int):
            self.size = (self.size, self.size)
        self.classes, self._names, self.y = _listed(Path(self.path))
        self._where = np.arange(len(self._names))
        self._kept = _Kept(len(self._names))

    def _require_possible(self) -> None:
        """Raise InputError for an option that is out of range."""
        if self.augment not in (None, *NAMED) and not callable(self.augment):
            raise InputError(
                f"augment must be 'crop', 'flip-crop', a function of an image, or None; found "
                f"{self.augment!r}"
            )
        if self.transform is not None and not callable(self.transform):
            raise InputError(f"transform must be a function of an image; found {self.transform!r}")
        sides = (self.size,) if isinstance(self.size, int) else tuple(self.size or (1,))
        if not all(isinstance(side, int) and side > 0 for side in sides) or len(sides) > 2:
            raise InputError(
                f"size must be (height, width) in pixels, or one number; found {self.size!r}"
            )
        if self.crop is not None and (not 0 < self.crop <= 1 or self.size is None):
            raise InputError(
                f"crop must be a share of the shorter side, from above 0 to 1, and needs a size; "
                f"found crop={self.crop!r} and size={self.size!r}"
            )
        if self.transform is not None and self.size is not None:
            raise InputError("size and transform both scale the images; give one of them")
        require_batch_size(self.batch_size)
        if self.num_workers < 0:
            raise InputError(f"num_workers must be 0 or more; found {self.num_workers}")

    @property
    def files(self) -> list[str]:
        """The file of each sample, in the order of `y`."""
        return [os.path.join(self.path, name) for name in self.names]

    @property
    def names(self) -> list[str]:
        """The same files, as they are called within the folder."""
        return [self._names[place] for place in self._where]

    def file_bytes(self) -> list[int]:
        """How large each of these files is.

        Raises:
            InputError: a file is no longer there, or it is empty.
        """
        sizes = []
        for file in self.files:
            try:
                sizes.append(os.stat(file).st_size)
            except OSError as error:
                raise _unreadable(file, error.strerror or in_one_line(error)) from error
            if not sizes[-1]:
                raise _unreadable(file, "the file is empty")
        return sizes

    @property
    def is_small(self) -> bool:
        """Whether the images are kept in memory once they are decoded, as far as is known."""
        return self._function() is None and self._kept.holds(self._decoder().shape())

    def subset(self, index: Any, **changes: Any) -> Self:
        """The samples at `index`. Keyword arguments change options of the constructor."""
        where = np.asarray(index)
        part = copy.copy(self)
        for name, value in changes.items():
            setattr(part, name, value)
        part._require_possible()
        part._where, part.y = self._where[where], self.y[torch.as_tensor(where)]
        return part

    def in_order(self) -> Self:
        """The same samples without shuffling or augmentation."""
        still = copy.copy(self)
        still.shuffle, still.augment = False, None
        return still

    def _function(self) -> Function | None:
        """What is called with each image instead of scaling it."""
        return self.augment if callable(self.augment) else self.transform

    def _decoder(self) -> _Decoder:
        size = self.size if isinstance(self.size, tuple) else None
        return _Decoder(str(self.path), self._names, size, self.crop, self._function())

    def _batches(self, places: Sequence[Tensor], draw: torch.Generator) -> Iterator[Inputs]:
        where = [self._where[place.numpy()] for place in places]
        plain = self._function() is None
        is_kept = plain and self._kept.has(self._where)
        read = map(self._kept.take, where) if is_kept else self._read(where, draw.initial_seed())
        for some, images in zip(where, read, strict=True):
            if plain:
                self._kept.put(some, images)
            yield self._ready(images, draw)

    def _read(self, where: Sequence[NDArray[np.intp]], seed: int) -> Iterator[Tensor]:
        """Decode batch after batch, in a `DataLoader`'s processes if there are any."""
        decoder = self._decoder()
        yield from DataLoader(
            decoder,
            batch_sampler=[some.tolist() for some in where],
            num_workers=self.num_workers,
            collate_fn=decoder.stacked,
            generator=torch.Generator().manual_seed(seed),
        )


def require_same_classes(splits: dict[str, Batches | None]) -> None:
    """Raise InputError if two image folders number their classes differently.

    Args:
        splits: by their names. Those that are no image folders aren't looked at.
    """
    folders = {name: data for name, data in splits.items() if isinstance(data, ImageFolder)}
    for name, images in folders.items():
        first, known = next(iter(folders.items()))
        if images.classes == known.classes:
            continue
        missing = sorted({*known.classes} ^ {*images.classes})[0]
        has, lacks = (first, name) if missing in known.classes else (name, first)
        raise InputError(
            f"the {has} data has a folder of the class {missing!r}, and the {lacks} data has none, "
            f"so the two number their classes differently; make an empty folder "
            f"{Path(folders[lacks].path, missing)}"
        )


class _Kept:
    """Decoded images of a folder, as far as they have been read and fit into memory."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.images: Tensor | None = None
        self.known = np.zeros(count, bool)

    def holds(self, shape: Sequence[int]) -> bool:
        """Whether all images of that shape fit."""
        return self.count * int(np.prod(shape)) <= KEPT_BYTES

    def has(self, where: NDArray[np.intp]) -> bool:
        return bool(self.known[where].all())

    def take(self, where: NDArray[np.intp]) -> Tensor:
        assert self.images is not None
        return self.images[torch.from_numpy(where)]

    def put(self, where: NDArray[np.intp], images: Tensor) -> None:
        """Keep these images, if all of the folder fit."""
        if self.has(where) or not self.holds(images.shape[1:]):
            return
        if self.images is None:
            self.images = torch.empty(self.count, *images.shape[1:], dtype=torch.uint8)
        if self.images.shape[1:] == images.shape[1:]:  # else the next batch says so
            self.images[torch.from_numpy(where)] = images
            self.known[where] = True


@dataclass(frozen=True, eq=False)
class _Decoder(Dataset[tuple[str, Tensor]]):
    """Decodes the image of a number; a process of a `DataLoader` gets a copy."""

    root: str
    names: Sequence[str]
    size: tuple[int, int] | None
    crop: float | None
    function: Function | None

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, place: int) -> tuple[str, Tensor]:
        file = os.path.join(self.root, self.names[place])
        image = _opened(file)
        if self.function is not None:
            return file, self._of_function(image, file)
        return file, _as_tensor(self._scaled(image))

    def shape(self) -> Sequence[int]:
        """The shape of the first image."""
        return (3, *self.size) if self.size else self[0][1].shape

    def stacked(self, samples: list[tuple[str, Tensor]]) -> Tensor:
        """A batch of images, if all have the same shape."""
        (first, like), *others = samples
        for file, image in others:
            if image.shape != like.shape or image.dtype != like.dtype:
                hint = "make it end in one size" if self.function else "pass size=(height, width)"
                raise InputError(
                    f"image {file} has (height, width) {tuple(image.shape[1:])}, but {first} has "
                    f"{tuple(like.shape[1:])}; {hint}"
                )
        return torch.stack([image for _, image in samples])

    def _scaled(self, image: Any) -> Any:
        from PIL import ImageOps

        if self.size is None:
            return image
        if self.crop is None:
            return image.resize(self.size[::-1])
        return ImageOps.fit(image, self.size[::-1], bleed=(1 - self.crop) / 2)

    def _of_function(self, image: Any, file: str) -> Tensor:
        from PIL import Image

        assert self.function is not None
        name = getattr(self.function, "__name__", type(self.function).__name__)
        try:
            made = self.function(image)
        except Exception as error:  # the user's code may raise anything
            raise InputError(
                f"{name} raised {in_one_line(error)} for image {file}; it is called with an image "
                "of Pillow's"
            ) from error
        if isinstance(made, Image.Image):
            return _as_tensor(made.convert("RGB"))
        if isinstance(made, Tensor) and made.dim() == 3:
            return made.as_subclass(Tensor)
        shape = f" of shape {tuple(made.shape)}" if isinstance(made, Tensor | np.ndarray) else ""
        raise InputError(
            f"{name} returned a {type(made).__name__}{shape} for image {file}; wanted an image of "
            "Pillow's, or a tensor of shape (channels, height, width)"
        )


def _opened(file: str) -> Any:
    """The image in a file, in RGB."""
    from PIL import Image

    try:
        with Image.open(file) as image:
            return image.convert("RGB")
    except Exception as error:  # Pillow's decoders raise many kinds of errors
        raise _unreadable(file, in_one_line(error)) from error


def _unreadable(file: str, why: str) -> InputError:
    return InputError(f"image {file} can't be read: {why}; replace it or remove it")


def _as_tensor(image: Any) -> Tensor:
    """An image's pixels as uint8 of shape (3, H, W)."""
    return torch.from_numpy(np.array(image).transpose(2, 0, 1))


def _listed(root: Path) -> tuple[tuple[str, ...], list[str], Tensor]:
    """The classes in a folder, and each image's path from there with its class."""
    wanted = f"wanted one folder per class: {root / 'CLASS' / 'IMAGE.png'}"
    if not root.is_dir():
        raise InputError(f"{root} is no folder; {wanted}")
    with os.scandir(root) as entries:
        visible = [entry for entry in entries if not entry.name.startswith(".")]
        classes = sorted(entry.name for entry in visible if entry.is_dir())
    if not classes:
        raise InputError(f"{root} has no class folders; {wanted}")
    names: list[str] = []
    counts = []
    for name in classes:
        before = len(names)
        for folder, _, files in os.walk(root / name):
            images = [file for file in files if file.lower().endswith(IMAGE_ENDINGS)]
            inside = os.path.relpath(folder, root)
            names += [os.path.join(inside, file) for file in images]
        names[before:] = sorted(names[before:])
        counts.append(len(names) - before)
    if not names:
        raise InputError(f"the class folders in {root} hold no images; {wanted}")
    return tuple(classes), names, torch.arange(len(classes)).repeat_interleave(torch.tensor(counts))
