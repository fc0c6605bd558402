"""The geometric and colour change from an input image to its output, which metadata must follow."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Change:
    """Change from the input to the output.

    Attributes:
        old, new: (width, height) in pixels, upright.
        orientation: EXIF orientation 1 to 8 of the stored pixels; the output is upright.
        to_srgb: whether the colours were converted from another space to sRGB.
        drop_location: whether the place where the picture was taken is removed.
    """

    old: tuple[int, int]
    new: tuple[int, int]
    orientation: int = 1
    to_srgb: bool = False
    drop_location: bool = False

    @property
    def turned(self) -> bool:
        return self.orientation in range(2, 9)

    @property
    def sideways(self) -> bool:
        """Whether width and height are swapped."""
        return self.orientation in (5, 6, 7, 8)

    @property
    def factors(self) -> tuple[float, float]:
        """Scale factors of width and height."""
        return self.new[0] / max(self.old[0], 1), self.new[1] / max(self.old[1], 1)

    def point(self, x: float, y: float, width: float, height: float) -> tuple[float, float]:
        """Map a point of the stored image into the upright one, without scaling.

        Args:
            x, y: the point.
            width, height: size of the upright image, in the unit of x and y.
        """
        if self.sideways:
            x, y = y, x
        if self.orientation in (2, 3, 6, 7):
            x = width - x
        if self.orientation in (3, 4, 7, 8):
            y = height - y
        return x, y
