"""SYSU-MM01's own gallery draws: `exp/rand_perm_cam.mat`, as its evaluation code distributes them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Self

import numpy as np

from tvilfm_plugin.data.items import Item

KEY = "rand_perm_cam"


class CameraPermutations:
    """For every camera and identity, a (draws, n) matrix of file numbers; draw t takes the beginning of row t."""

    def __init__(self, cameras: Sequence[Sequence[np.ndarray]], file: Path) -> None:
        """Args:
        cameras: matrices of camera c and identity i at [c - 1][i - 1]; empty where a camera did not see the person.
        file: for messages.
        """
        self.cameras = cameras
        self.file = file

    @classmethod
    def read(cls, file: Path) -> Self:
        """The file as MATLAB wrote it: a cell per camera, in it a cell per identity."""
        from scipy.io import loadmat

        try:
            content = loadmat(file)
        except FileNotFoundError:
            raise
        # A damaged file raises whatever scipy meets first: MatReadError, zlib.error, ValueError, TypeError, KeyError ...
        except Exception as error:
            raise ValueError(f"{file} is no MATLAB file that scipy reads ({error}). Copy SYSU-MM01's again.") from None
        if KEY not in content:
            found = ", ".join(name for name in content if not name.startswith("__")) or "nothing"
            raise ValueError(f"{file} holds {found}, not {KEY}. It is the file of SYSU-MM01's evaluation code.")
        cells = content[KEY]
        if cells.dtype != object or not all(isinstance(cell, np.ndarray) for cell in cells.flat):
            raise ValueError(f"{file}: {KEY} is a {cells.dtype} array, expected a cell per camera with a cell per identity.")
        return cls([list(camera.ravel()) for camera in cells.ravel()], file)

    def numbers(self, camid: int, pid: int, draw: int, shots: int) -> list[int]:
        """The file numbers that a draw takes of a person in a camera."""
        persons = self.cameras[camid - 1] if camid <= len(self.cameras) else []
        rows = np.atleast_2d(persons[pid - 1]) if pid <= len(persons) else np.empty((0, 0))
        if rows.size == 0:
            raise ValueError(f"{self.file} has no images of identity {pid} in camera {camid}, but the data set has.")
        if rows.ndim != 2 or rows.dtype.kind not in "iuf":
            raise ValueError(f"{self.file} has no table of file numbers for identity {pid} in camera {camid}. Copy it again.")
        if draw >= len(rows):
            raise ValueError(f"{self.file} has {len(rows)} draws, so draw {draw + 1} cannot be made: lower TEST.DRAWS.")
        return [int(number) for number in rows[draw, :shots]]

    def draw(self, items: Sequence[Item], groups: Sequence[Sequence[int]], shots: int, draw: int) -> list[int]:
        """One gallery: indices of `items` (named by their numbers), `shots` of each group in turn, or all that it has."""
        gallery = []
        for group in groups:
            pid, camid = items[group[0]].pid, items[group[0]].camid
            by_number = {int(Path(items[index].path).stem): index for index in group}
            numbers = self.numbers(camid, pid, draw, shots)
            missing = [number for number in numbers if number not in by_number]
            if missing:
                raise ValueError(
                    f"{self.file} names file {missing[0]:04d} of identity {pid} in camera {camid}, which has files "
                    f"{min(by_number)}..{max(by_number)}. The gallery needs the complete data set."
                )
            gallery += [by_number[number] for number in numbers]
        return gallery
