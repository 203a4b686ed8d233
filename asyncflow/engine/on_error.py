"""When failures stop a call: a frozen rule, from what users write."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class OnError:
    """When failures stop the call.

    Attributes:
        keep: Failures become outcomes; otherwise the first one is raised.
        count: Stop once this many have failed.
        share: Stop once this share has failed.
    """

    keep: bool = False
    count: int | None = None
    share: float | None = None

    @classmethod
    def of(cls, value: object) -> OnError:
        """From what users write: "raise", "continue", a count, or a share.

        Raises:
            ValueError, TypeError: If it is none of them.
        """
        if value == "raise":
            return RAISE
        if value == "continue":
            return cls(keep=True)
        if isinstance(value, int) and not isinstance(value, bool):
            if value >= 1:
                return cls(keep=True, count=value)
        elif isinstance(value, float):
            if 0 < value <= 1:
                return cls(keep=True, share=value)
        elif not isinstance(value, str):
            raise TypeError(f"on_error={value!r}: {_ON_ERROR}")
        raise ValueError(f"on_error={value!r}: {_ON_ERROR}")

    def enough(self, failed: int, ended: int, length: int | None) -> bool:
        """Whether that many failures stop the call. Of an unknown length, a share counts from item 100 on."""
        if self.count is not None:
            return failed >= self.count
        if self.share is None:
            return False
        if length is None:
            return ended >= 100 and failed >= self.share * ended
        return failed >= self.share * length


RAISE = OnError()
_ON_ERROR = (
    'it is "raise", "continue", a whole number of failures from 1 (stop once that many have failed), or a '
    "share in (0, 1] as a float"
)
