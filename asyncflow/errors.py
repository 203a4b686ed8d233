"""Every exception that asyncflow raises of its own, drawn as a tree.

    AsyncflowError
    ├─ FlowError                     the graph is wrong
    │  ├─ MissingStartError          a flow was run without a start node
    │  ├─ ActionError                post returned an action that is not a string (a TypeError)
    │  └─ StepLimitError             a flow took more than max_steps steps
    ├─ ItemError                     one item failed for a reason of the engine's own
    │  ├─ ItemTimeoutError           timeout or total_timeout ran out (a TimeoutError)
    │  ├─ ItemCancelledError         exec raised CancelledError though nobody cancelled it
    │  ├─ ItemCrashedError           the process ended whenever the item was at work, so it is not run
    │  └─ CoroutineReturnedError     a step returned a coroutine (a TypeError)
    ├─ TooManyFailuresError          on_error's count or share was reached; carries .outcomes
    ├─ ArrayError                    an array handed to compute does not fit
    │  ├─ ShapeError                 its shape is not the one needed (a ValueError)
    │  ├─ DtypeError                 its dtype is not the one needed (a TypeError)
    │  └─ RangeError                 a number in it, or an argument, is out of range (a ValueError)
    ├─ NotSupportedError             an argument whose part of asyncflow cannot be used here (a ValueError)
    ├─ BudgetSpentError              max_cost leaves no room for this call; carries .reason
    ├─ TransientError                trying again may help; carries .retry_after and .exhausted
    ├─ ModelOutputError              the model's text never was what was asked for; carries .text
    ├─ StoreError                    a run's records cannot be written or read, so the run stops
    │  ├─ StoreLockedError           another process has the store; carries .pid .host .started
    │  ├─ StoreMissingError          there is no store yet: nothing was ever recorded there
    │  └─ StoreFormatError           not a store, a damaged one, or one of a newer version
    ├─ NotStorableError              a value could not be read back if it were recorded (a TypeError)
    ├─ KeyNeededError                an item has no content to be known by, so it needs a key (a TypeError)
    ├─ DuplicateKeyError             two items of one place have the same key (a ValueError)
    ├─ ResumeMismatchError           the program is not the one that recorded the run; carries .differences
    ├─ RunStoppedError               it was asked to stop before it was done; carries .reason .run_id
    ├─ RecordedError                 what an item failed with in an earlier process; carries .kind
    └─ HTTPError                     one HTTP call failed; carries .status .url .request_id .retry_after …
       ├─ HTTPConnectionError        no connection, or it broke (a TransientError, a ConnectionError)
       ├─ HTTPTimeoutError           a part or the whole took too long (a TransientError, a TimeoutError)
       ├─ RateLimitedError           429: too much for now (a TransientError)
       ├─ ServerError                408, 409, 425, 5xx, or a failure told in a 200 (a TransientError)
       ├─ BadAnswerError             cut off, not JSON, not what was promised (a TransientError)
       ├─ AccessDeniedError          401, 402, 403, no credit left: no call with this key will succeed
       ├─ RequestRefusedError        another 4xx: the same request would be refused again
       │  └─ RequestTooLargeError    413, or more tokens than the model reads
       ├─ RedirectError              a redirect that is not followed, or too many
       └─ AnswerTooLargeError        the answer's body is larger than max_body_size_bytes

What a user's own code raises is passed on as it is, with a note (see `Failed` and DESIGN decision 6).
Wrong arguments are plain ValueError and TypeError. Cancellation is never an error here. Every class
survives pickle: fields are keyword arguments with defaults, so `args` alone rebuild the object.
"""

from __future__ import annotations

from typing import Any


class AsyncflowError(Exception):
    """Base of every exception in this module.

    Attributes:
        partial: What had been done before the failure, where a call is made of several and says so, as
            `LLMClient.embed` does; else None.
    """

    partial: Any = None

    def __init__(self, message: str = "") -> None:
        super().__init__(message)


class FlowError(AsyncflowError):
    """The graph is wrong: nothing about one item, everything about how nodes are joined."""


class MissingStartError(FlowError):
    """A flow was run, drawn or checked without a start node."""


class ActionError(FlowError, TypeError):
    """A `post` returned something that cannot name an action, where a successor had to be looked up."""


class StepLimitError(FlowError):
    """A flow took more than `max_steps` steps, so a loop in it does not end."""


class ItemError(AsyncflowError):
    """One item failed for a reason of the engine's own, not through an exception of the user's."""


class ItemTimeoutError(ItemError, TimeoutError):
    """An attempt took longer than `timeout`, or all attempts together longer than `total_timeout`.

    Attributes:
        scope: `"attempt"` or `"total"`.
        seconds: The limit that was passed.
    """

    def __init__(self, message: str = "", *, scope: str = "attempt", seconds: float = 0.0) -> None:
        super().__init__(message)
        self.scope = scope
        self.seconds = seconds


class ItemCancelledError(ItemError):
    """`exec` raised CancelledError although nobody had cancelled it, so its item has failed."""


class ItemCrashedError(ItemError):
    """The process has ended again and again while this item was at work, at last with nothing else in flight.

    It was not run this time, so that the other items go on.
    """


class CoroutineReturnedError(ItemError, TypeError):
    """A `prep`, `exec` or `post` returned a coroutine, which nobody would await."""


class TooManyFailuresError(AsyncflowError):
    """As many items failed as `on_error` allows, so the call stopped.

    Attributes:
        outcomes: What became of the items that finished, in input order, for `amap` and nodes that collect.
            Empty where a reader of a `stream` or `post_item` has already received them.
    """

    def __init__(self, message: str = "", *, outcomes: tuple[Any, ...] = ()) -> None:
        super().__init__(message)
        self.outcomes = outcomes


class ArrayError(AsyncflowError):
    """An array handed to `compute` does not fit; nothing is broadcast, cast or clipped to make it fit."""


class ShapeError(ArrayError, ValueError):
    """An array's shape is not the one needed; the message names the argument and both shapes."""


class DtypeError(ArrayError, TypeError):
    """An array's dtype is not the one needed; the message names the argument and says how to convert it."""


class RangeError(ArrayError, ValueError):
    """A number is out of its range: a class index, a probability, a rate, a count."""


class NotSupportedError(AsyncflowError, ValueError):
    """An argument names a part of asyncflow that this version or this place does not have."""


class BudgetSpentError(AsyncflowError):
    """A call was not started, because what it probably costs is more than `max_cost` leaves.

    Not a failure of the call: with more money it may run. `reason` is what `Skipped` says of its item.

    Attributes:
        reason: `"budget"`.
    """

    reason = "budget"


class TransientError(AsyncflowError):
    """Trying again may help: a refusal for now, a broken connection, a server's own failure.

    Attributes:
        retry_after: Seconds the other side asked to wait, or None.
        exhausted: True when the client that raised it has used up attempts of its own, so that a node
            does not multiply them.
    """

    def __init__(
        self, message: str = "", *, retry_after: float | None = None, exhausted: bool = False
    ) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        self.exhausted = exhausted


class HTTPError(AsyncflowError):
    """One HTTP call failed, after as many attempts as its client makes.

    Texts and fields never hold a key: queries are cut from addresses, and values of headers that carry
    credentials are struck out of what a server says.

    Attributes:
        method, url: What was asked; the address without user, query and fragment.
        status: The answer's status, or None where there was no answer.
        code: The provider's own word for the failure, such as `"context_length_exceeded"`, or None.
        request_id: What the provider calls this request, for its support, or None.
        retry_after: Seconds the other side asked to wait, or None.
        should_retry: What the answer's `x-should-retry` said, or None. It outranks the class.
        sent: False when the request cannot have reached the server.
        phase: For a timeout: `"connect"`, `"write"`, `"read"` or `"total"`.
        attempts: Attempts made by the client that raised it, refusals for now included.
        exhausted: True when that client was allowed to repeat and has decided that it is over.
    """

    def __init__(
        self,
        message: str = "",
        *,
        method: str = "",
        url: str = "",
        status: int | None = None,
        code: str | None = None,
        request_id: str | None = None,
        retry_after: float | None = None,
        should_retry: bool | None = None,
        sent: bool = True,
        phase: str = "",
        attempts: int = 1,
        exhausted: bool = False,
    ) -> None:
        super().__init__(message)
        self.method = method
        self.url = url
        self.status = status
        self.code = code
        self.request_id = request_id
        self.retry_after = retry_after
        self.should_retry = should_retry
        self.sent = sent
        self.phase = phase
        self.attempts = attempts
        self.exhausted = exhausted


class HTTPConnectionError(HTTPError, TransientError, ConnectionError):
    """There was no connection, or it broke before the answer was whole."""


class HTTPTimeoutError(HTTPError, TransientError, TimeoutError):
    """Connecting, sending, the wait for the next piece of the answer, or all of it took too long."""


class RateLimitedError(HTTPError, TransientError):
    """The server refuses for now (429): too many requests, or too many tokens."""


class ServerError(HTTPError, TransientError):
    """The server failed (5xx), gave up waiting (408), or met a conflict that passes (409, 425)."""


class BadAnswerError(HTTPError, TransientError):
    """The answer was cut off, is not what its headers say, or lacks what was promised."""


class AccessDeniedError(HTTPError):
    """The key is refused, may not do this, or its account has no credit: no other call will fare better."""


class RequestRefusedError(HTTPError):
    """The server understood the request and refuses it (4xx): repeating it changes nothing."""


class RequestTooLargeError(RequestRefusedError):
    """The request is larger than the server takes (413), or has more tokens than the model reads."""


class RedirectError(HTTPError):
    """The server points elsewhere, and that is not followed."""


class AnswerTooLargeError(HTTPError):
    """The answer's body, decompressed, is larger than `max_body_size_bytes`; the rest was not read."""


class ModelOutputError(AsyncflowError):
    """The model's text did not satisfy what was asked for, and re-asking it did not help.

    Attributes:
        text: The model's last answer.
        problems: What was wrong with it, one line each.
        usage: The tokens that all of its answers cost, as the client's `Usage`, or None.
        exhausted: True: the client has re-asked as often as it may.
    """

    def __init__(
        self,
        message: str = "",
        *,
        text: str = "",
        problems: tuple[str, ...] = (),
        usage: Any = None,
        exhausted: bool = True,
    ) -> None:
        super().__init__(message)
        self.text = text
        self.problems = problems
        self.usage = usage
        self.exhausted = exhausted


class StoreError(AsyncflowError):
    """A run's records could not be written or read. What was committed before is whole.

    A run never goes on without its store: results that wait to be recorded get this error instead.
    """


class StoreLockedError(StoreError):
    """Another process has the store open for writing.

    Attributes:
        pid, host: Who, or None where the holder has not said so.
        started: When it opened the store, as ISO 8601 text in UTC, or None.
    """

    def __init__(
        self,
        message: str = "",
        *,
        pid: int | None = None,
        host: str | None = None,
        started: str | None = None,
    ) -> None:
        super().__init__(message)
        self.pid = pid
        self.host = host
        self.started = started


class StoreMissingError(StoreError):
    """There is nothing to read: no store was made there yet. A run that writes makes one."""


class StoreFormatError(StoreError):
    """The file is not a store, is damaged, or was written by a newer version. It was left as it is."""


class NotStorableError(AsyncflowError, TypeError):
    """A result was refused before it was recorded, because it could not be read back as what it is."""


class KeyNeededError(AsyncflowError, TypeError):
    """An item's content cannot be digested, so a durable run cannot know it again without a `key`."""


class DuplicateKeyError(AsyncflowError, ValueError):
    """The user's `key` gave the same key for two items of one place."""


class ResumeMismatchError(AsyncflowError):
    """The program is not the one that recorded the run, or does not do again what it did.

    Attributes:
        differences: What differs, one line each.
    """

    def __init__(self, message: str = "", *, differences: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.differences = differences


class RunStoppedError(AsyncflowError):
    """The run was asked to stop, and ended with something left to do. What was recorded is kept.

    Attributes:
        reason: Why it was asked, in a word: `"SIGINT"`, or what `Stop.request` was given.
        run_id: The run that goes on where this one ended, or None where nothing was stored.
    """

    def __init__(self, message: str = "", *, reason: str = "", run_id: str | None = None) -> None:
        super().__init__(message)
        self.reason = reason
        self.run_id = run_id


class RecordedError(AsyncflowError):
    """What an item failed with in an earlier process, as text: stored errors are not rebuilt by name.

    Attributes:
        kind: The name of the original exception's class.
    """

    def __init__(self, message: str = "", *, kind: str = "") -> None:
        super().__init__(message)
        self.kind = kind
