"""How an enlarged picture differs from the one that a file's metadata describe."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Change:
    """The step from the input to the output.

    Attributes:
        old, new: (width, height) in pixels, upright.
        orientation: 1 to 8, by which the stored pixels were turned upright.
        to_srgb: whether the colours left their own space for sRGB.
        drop_location: whether the place where the picture was taken is to be left out.
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
        """Whether width and height changed places."""
        return self.orientation in (5, 6, 7, 8)

    @property
    def factors(self) -> tuple[float, float]:
        """By how much the width and the height grew."""
        return self.new[0] / max(self.old[0], 1), self.new[1] / max(self.old[1], 1)

    def point(self, x: float, y: float, width: float, height: float) -> tuple[float, float]:
        """A point of the stored picture in the upright one, whose size is given in the same unit; not scaled."""
        if self.sideways:
            x, y = y, x
        if self.orientation in (2, 3, 6, 7):
            x = width - x
        if self.orientation in (3, 4, 7, 8):
            y = height - y
        return x, y
