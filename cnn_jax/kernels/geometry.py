"""The geometry of a convolution: everything that defines it except its operands."""

from typing import NamedTuple

Pair = tuple[int, int]


class Geometry(NamedTuple):
    """How a kernel slides over images; hashable.

    Attributes:
      size: rows and columns of the images.
      taps: rows and columns of the kernel.
      strides: strides of rows and columns.
      padding: pixels (before, after) the rows and the columns; negative to crop.
      dilation: distance between the kernel's taps.
      groups: number of independent groups of channels.
    """

    size: Pair
    taps: Pair
    strides: Pair = (1, 1)
    padding: tuple[Pair, Pair] = ((0, 0), (0, 0))
    dilation: Pair = (1, 1)
    groups: int = 1

    def outputs(self) -> Pair:
        """Rows and columns of the feature maps; less than 1 if no kernel fits."""
        rows, columns = (
            (size + sum(pads) - dilation * (taps - 1) - 1) // stride + 1
            for size, taps, stride, pads, dilation in zip(
                *(self.size, self.taps, self.strides, self.padding, self.dilation),
                strict=True,
            )
        )
        return rows, columns
