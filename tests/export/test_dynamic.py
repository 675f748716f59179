"""--dynamic: which sizes stay open."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim

from export.dynamic import dynamic_shapes
from fx_passes.errors import UsageError


class Two(nn.Module):
    def forward(self, image: Tensor, window: Tensor) -> Tensor:
        return image + window


INPUTS = (torch.ones(2, 3, 8), torch.ones(2, 3, 8))


def opened(*specs: str) -> list[set[int]]:
    shapes = dynamic_shapes(Two(), INPUTS, specs)
    assert shapes is not None
    return [set(shape or {}) for shape in shapes]


def test_forms() -> None:
    """Batch of every input, dimensions by name and by number, several at once."""
    assert dynamic_shapes(Two(), INPUTS, ()) is None
    assert opened("batch") == [{0}, {0}]
    assert opened("window:0,2") == [set(), {0, 2}]
    assert opened("0:1", "1:2") == [{1}, {2}]


def test_an_input_without_the_batch() -> None:
    """The error names it, and what to write. Named by itself, it is left out."""
    inputs = torch.ones(2, 3, 8), torch.ones(1, 3, 8)
    with pytest.raises(
        UsageError, match=r"dimension 0 of 'window' is 1; name the inputs .* --dynamic image:0"
    ):
        dynamic_shapes(Two(), inputs, ["batch"])
    image, window = dynamic_shapes(Two(), inputs, ["batch", "window:0"]) or ({}, {})
    assert (image[0].__name__, window[0].__name__) == ("batch", "window_0")


def test_names_of_several_arguments() -> None:
    """``*images`` have the names of the inputs of the file: ``images_0`` and ``images_1``."""

    class Several(nn.Module):
        def forward(self, *images: Tensor) -> Tensor:
            return images[0] + images[1]

    shapes = dynamic_shapes(Several(), INPUTS, ["images_1:2=w"])
    assert shapes is not None
    assert [list(shape or {}) for shape in shapes[0]] == [[], [2]]
    with pytest.raises(UsageError, match="no argument 'images'; there are images_0, images_1"):
        dynamic_shapes(Several(), INPUTS, ["images:2"])


def test_batch_is_one_size() -> None:
    """All inputs have the same open batch."""
    first, second = dynamic_shapes(Two(), INPUTS, ("batch",)) or ({}, {})
    assert first[0] is second[0]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("imge:0", "no argument 'imge'; there are image, window"),
        ("7:0", "no argument '7'"),
        ("image:9", "argument 'image' has no dimension '9'"),
        ("image:x", "argument 'image' has no dimension 'x'"),
        ("everything", "takes batch or INPUT:DIM"),
        ("batches", "takes batch or INPUT:DIM"),
        ("image:2=1h", "a name must be a Python identifier, got '1h'"),
        ("image:2=lambda", "a name must be a Python identifier, got 'lambda'"),
        ("image:2=", "a name must be a Python identifier, got ''"),
        ("image:2=h[", r"got '2=h\[' in"),
        ("image:2=h]1..9[", "got '2=h"),
        ("image:2=h[..]", r"bounds are \[LOW..HIGH\], \[LOW..\] or \[..HIGH\], got \[\.\.\]"),
        ("image:2=h[4]", r"got \[4\]"),
        ("image:2=h[-1..9]", r"got \[-1\.\.9\]"),
        ("image:2=h[9..8]", "size `h` from 9 to 8 is not open"),
        ("image:2=h[8..8]", "size `h` from 8 to 8 is not open"),
        ("image:9=h", "argument 'image' has no dimension '9'"),
        ("image:2=h[9..]", "`h` must be at least 9, but dimension 2 of 'image' is 8 in the example"),
        ("1:2[..7]", "`window_2` must be at most 7, but dimension 2 of 'window' is 8 in the example"),
        ("batch[3..9]", "`batch` must be 3 to 9, but dimension 0 of 'image' is 2 in the example"),
        ("image:1=h,2=h", "`h` has two values in the example: dimension 1 of 'image' is 3, dimension 2 of"),
        ("image:1=h,1=g", "names a size `g` that is already `h`"),
    ],
)
def test_errors(spec: str, message: str) -> None:
    """A typo is named."""
    with pytest.raises(UsageError, match=message):
        opened(spec)


def test_where_it_cannot_work() -> None:
    """Without inputs there is nothing to open; an exported program's sizes are fixed."""
    with pytest.raises(UsageError, match="needs example inputs"):
        dynamic_shapes(Two(), None, ("batch",))
    with pytest.raises(UsageError, match="fixed when it was exported"):
        dynamic_shapes(torch.export.export(Two(), INPUTS), INPUTS, ("batch",))


def test_names_and_bounds() -> None:
    """They reach torch's Dims. Without a name a size keeps the one that we make."""
    image, window = dynamic_shapes(Two(), INPUTS, ("image:0=n[1..16],2=h[4..]", "window:1[..9],2")) or (
        {},
        {},
    )
    found = {f"{dim.__name__}": (dim.min, dim.max) for dim in (*image.values(), *window.values())}
    any_low, any_high = Dim("any").min, Dim("any").max
    assert found == {
        "n": (1, 16),
        "h": (4, any_high),
        "window_1": (any_low, 9),
        "window_2": (any_low, any_high),
    }
    assert list(image) == [0, 2]
    assert [dim.__name__ for dim in window.values()] == ["window_1", "window_2"]


@pytest.mark.parametrize(
    "specs",
    [
        ("image:2=h[4..99]", "window:2=h"),
        ("image:2=h[4..],0", "window:2=h[..99]"),
        ("image:2=h[..99]", "window:2=h[4..]"),
    ],
)
def test_one_name_is_one_size(specs: tuple[str, str]) -> None:
    """At another input too; bounds that are given once hold for all of them."""
    image, window = dynamic_shapes(Two(), INPUTS, specs) or ({}, {})
    assert image[2] is window[2]
    assert (image[2].min, image[2].max) == (4, 99)


def test_the_batch_has_a_name_and_bounds() -> None:
    """As any other size."""
    image, window = dynamic_shapes(Two(), INPUTS, ("batch=n[1..16]",)) or ({}, {})
    assert image[0] is window[0]
    assert (image[0].__name__, image[0].min, image[0].max) == ("n", 1, 16)


@pytest.mark.parametrize(
    ("specs", "message"),
    [
        (
            ("image:2=h[4..99]", "window:2=h[4..98]"),
            r"`h` has one bound of 99 \(image.* and one of 98 \(window",
        ),
        (("image:2=h[1..]", "window:2=h[2..]"), "`h` has one bound of 1 .* and one of 2"),
        (("image:2=h[50..]", "window:2=h[..40]"), "`h` from 50 to 40 is not open"),
        (("batch", "window:0=n"), r"names a size `n` that is already `batch` \(batch\)"),
        (("image:0=n", "batch"), r"batch names a size `batch` that is already `n` \(image:0=n\)"),
    ],
)
def test_what_contradicts_itself(specs: tuple[str, str], message: str) -> None:
    """One line says what is said twice."""
    with pytest.raises(UsageError, match=message):
        opened(*specs)


def test_old_spellings_may_overlap() -> None:
    """The batch of one input may be another one than that of the rest: the later spec is taken."""
    image, window = dynamic_shapes(Two(), INPUTS, ("batch", "image:0")) or ({}, {})
    assert (image[0].__name__, window[0].__name__) == ("image_0", "batch")
