"""How a kernel slides over images: all that a convolution is, beside its operands."""

from typing import NamedTuple

Pair = tuple[int, int]


class Geometry(NamedTuple):
    """How a kernel slides over images; hashable.

    Attributes:
      size: rows and columns of the images.
      taps: rows and columns of the kernel.
      strides: of rows and columns.
      padding: pixels (before, after) the rows and the columns; a crop is negative.
      dilation: distance of the kernel's taps.
      groups: of channels, which do not see each other.
    """

    size: Pair
    taps: Pair
    strides: Pair = (1, 1)
    padding: tuple[Pair, Pair] = ((0, 0), (0, 0))
    dilation: Pair = (1, 1)
    groups: int = 1

    def outputs(self) -> Pair:
        """Rows and columns of the feature maps; less than 1 where no kernel fits."""
        rows, columns = (
            (size + sum(pads) - dilation * (taps - 1) - 1) // stride + 1
            for size, taps, stride, pads, dilation in zip(
                *(self.size, self.taps, self.strides, self.padding, self.dilation),
                strict=True,
            )
        )
        return rows, columns
