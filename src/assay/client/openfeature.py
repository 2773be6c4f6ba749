"""A provider for OpenFeature over the Python client; needs the extra `assay[openfeature]`.

::

    api.set_provider(AssayProvider(Client("https://assay.example", "assay_…")))

A flag is an experiment. The context's targeting key is the user's id, what stands beside it are attributes,
the ids of other units among them. Reasons and error codes are those of our OFREP endpoint.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, TypeVar, cast

from openfeature.evaluation_context import EvaluationContext
from openfeature.event import ProviderEventDetails
from openfeature.exception import ErrorCode, ProviderFatalError, ProviderNotReadyError
from openfeature.flag_evaluation import FlagResolutionDetails, FlagValueType, Reason
from openfeature.provider import AbstractProvider, Metadata
from openfeature.track import TrackingEventDetails

from assay.client.client import Client
from assay.client.engine import Change, Status
from assay.client.evaluation import Evaluation, Origin

T = TypeVar("T")
Object = Sequence[FlagValueType] | Mapping[str, FlagValueType]
logger = logging.getLogger("assay.client")

_REASONS: Final[Mapping[str, Reason]] = {
    "assigned": Reason.SPLIT,
    "override": Reason.TARGETING_MATCH,
    "rolled_out": Reason.STATIC,
    "variant_disabled": Reason.DISABLED,
    "not_running": Reason.DISABLED,
    "not_in_traffic": Reason.SPLIT,
    "layer_excluded": Reason.SPLIT,
    "holdout": Reason.SPLIT,
}
_ERRORS: Final[Mapping[str, ErrorCode]] = {
    "unknown_experiment": ErrorCode.FLAG_NOT_FOUND,
    "not_ready": ErrorCode.PROVIDER_NOT_READY,
    "error": ErrorCode.INVALID_CONTEXT,
}


class AssayProvider(AbstractProvider):
    """Resolves flags with a client, which it owns: `shutdown` sends what waits and closes it.

    With `durable`, flags are resolved by `Client.assign`: the server decides, has it on disk, and is waited
    for up to `assign_wait`. Without, they are resolved in memory, and exposures are recorded. What only the
    server can evaluate is asked of it in either case. `ready_wait` is how many seconds `initialize` waits for
    the first rules.
    """

    def __init__(self, client: Client, *, durable: bool = False, ready_wait: float = 5.0) -> None:
        super().__init__()
        self.client = client
        self._durable = durable
        self._ready_wait = ready_wait
        self._refused = ""
        self._initialized = False
        self._leave: Callable[[], None] = client.subscribe(self._changed)

    def get_metadata(self) -> Metadata:
        """The provider's name."""
        return Metadata(name="assay")

    def initialize(self, evaluation_context: EvaluationContext) -> None:  # noqa: ARG002
        """Wait for the first rules; those from a file will do.

        Raises `ProviderFatalError` for a key that is refused, and `ProviderNotReadyError` where there are no
        rules in time: when they come, the provider says that it is ready.
        """
        ready = self.client.wait_until_ready(self._ready_wait)
        self._initialized = True
        if ready:
            return
        if self.client.status is Status.STALE:
            self.emit_provider_stale(ProviderEventDetails(message="The last payload is in use."))
        elif self._refused:
            raise ProviderFatalError(self._refused)
        else:
            raise ProviderNotReadyError(f"There are no rules after {self._ready_wait:g} s.")

    def shutdown(self) -> None:
        """Send what waits and close the client."""
        self._leave()
        self.client.close()

    def _changed(self, change: Change) -> None:
        """Tell OpenFeature what the client tells."""
        self._refused = change.message if change.refused else ""
        if not self._initialized:
            return
        details = ProviderEventDetails(flags_changed=change.changed or None, message=change.message or None)
        if change.status is Status.READY:
            self.emit_provider_ready(details)
            if change.changed:
                self.emit_provider_configuration_changed(details)
        elif change.status is Status.STALE:
            self.emit_provider_stale(details)
        elif change.status is Status.ERROR:
            details.error_code = ErrorCode.PROVIDER_FATAL if change.refused else ErrorCode.GENERAL
            self.emit_provider_error(details)

    def track(
        self,
        tracking_event_name: str,
        evaluation_context: EvaluationContext | None = None,
        tracking_event_details: TrackingEventDetails | None = None,
    ) -> None:
        """Record a tracking event with its value, its attributes as properties, and the context's units."""
        user_id, attributes = _context(evaluation_context)
        if not user_id:
            logger.warning("The tracking event %s has no targeting key and is lost.", tracking_event_name)
            return
        details = tracking_event_details or TrackingEventDetails()
        self.client.track(
            user_id,
            tracking_event_name,
            value=details.value,
            properties=_plain(details.attributes) or None,
            units=self.client.units_in(attributes) or None,
        )

    def resolve_boolean_details(
        self, flag_key: str, default_value: bool, evaluation_context: EvaluationContext | None = None
    ) -> FlagResolutionDetails[bool]:
        """A boolean flag."""
        return self._resolve(flag_key, default_value, evaluation_context, _boolean, "a boolean")

    def resolve_string_details(
        self, flag_key: str, default_value: str, evaluation_context: EvaluationContext | None = None
    ) -> FlagResolutionDetails[str]:
        """A text."""
        return self._resolve(flag_key, default_value, evaluation_context, _string, "a string")

    def resolve_integer_details(
        self, flag_key: str, default_value: int, evaluation_context: EvaluationContext | None = None
    ) -> FlagResolutionDetails[int]:
        """A whole number."""
        return self._resolve(flag_key, default_value, evaluation_context, _integer, "an integer")

    def resolve_float_details(
        self, flag_key: str, default_value: float, evaluation_context: EvaluationContext | None = None
    ) -> FlagResolutionDetails[float]:
        """A number; whole ones are numbers, too."""
        return self._resolve(flag_key, default_value, evaluation_context, _float, "a number")

    def resolve_object_details(
        self, flag_key: str, default_value: Object, evaluation_context: EvaluationContext | None = None
    ) -> FlagResolutionDetails[Object]:
        """A config."""
        return self._resolve(flag_key, default_value, evaluation_context, _object, "an object")

    # The same for asyncio: where the server is asked, a thread waits for it.

    async def resolve_boolean_details_async(
        self, flag_key: str, default_value: bool, evaluation_context: EvaluationContext | None = None
    ) -> FlagResolutionDetails[bool]:
        """A boolean flag."""
        return await self._aside(self.resolve_boolean_details, flag_key, default_value, evaluation_context)

    async def resolve_string_details_async(
        self, flag_key: str, default_value: str, evaluation_context: EvaluationContext | None = None
    ) -> FlagResolutionDetails[str]:
        """A text."""
        return await self._aside(self.resolve_string_details, flag_key, default_value, evaluation_context)

    async def resolve_integer_details_async(
        self, flag_key: str, default_value: int, evaluation_context: EvaluationContext | None = None
    ) -> FlagResolutionDetails[int]:
        """A whole number."""
        return await self._aside(self.resolve_integer_details, flag_key, default_value, evaluation_context)

    async def resolve_float_details_async(
        self, flag_key: str, default_value: float, evaluation_context: EvaluationContext | None = None
    ) -> FlagResolutionDetails[float]:
        """A number."""
        return await self._aside(self.resolve_float_details, flag_key, default_value, evaluation_context)

    async def resolve_object_details_async(
        self, flag_key: str, default_value: Object, evaluation_context: EvaluationContext | None = None
    ) -> FlagResolutionDetails[Object]:
        """A config."""
        return await self._aside(self.resolve_object_details, flag_key, default_value, evaluation_context)

    async def _aside(
        self,
        resolve: Callable[[str, T, EvaluationContext | None], FlagResolutionDetails[T]],
        flag_key: str,
        default: T,
        context: EvaluationContext | None,
    ) -> FlagResolutionDetails[T]:
        if self._durable:
            return await asyncio.to_thread(resolve, flag_key, default, context)
        return resolve(flag_key, default, context)

    def _resolve(
        self,
        flag_key: str,
        default: T,
        context: EvaluationContext | None,
        read: Callable[[Any], T | None],
        wanted: str,
    ) -> FlagResolutionDetails[T]:
        """One flag, of the type that `read` gives, or None for another type."""
        user_id, attributes = _context(context)
        if not user_id:
            return _failed(
                default,
                ErrorCode.TARGETING_KEY_MISSING,
                "The context has no targeting key: the id of the user.",
            )
        found = self._evaluated(flag_key, user_id, attributes)
        metadata: dict[str, bool | int | float | str] = {
            "reason": str(found.reason),
            "origin": str(found.origin),
        }
        if found.value is None:
            code = _ERRORS.get(found.reason)
            if code is not None:
                return _failed(default, code, found.detail or f"There is no flag {flag_key!r}.", metadata)
            return FlagResolutionDetails(default, reason=self._reason(found), flag_metadata=metadata)
        value = read(found.value)
        if value is None:
            said = f"{flag_key} is {type(found.value).__name__}, and {wanted} is asked for."
            return _failed(default, ErrorCode.TYPE_MISMATCH, said, metadata)
        return FlagResolutionDetails(
            value, reason=self._reason(found), variant=found.variant, flag_metadata=metadata
        )

    def _evaluated(self, flag_key: str, user_id: str, attributes: Mapping[str, Any]) -> Evaluation:
        units = self.client.units_in(attributes)
        if not self._durable:
            found = self.client.evaluate(flag_key, user_id, attributes, units=units)
            if found.reason != "remote_only":
                return found
        return self.client.assign(flag_key, user_id, attributes, units=units)

    def _reason(self, found: Evaluation) -> Reason:
        """OpenFeature's word for how the value came about; ours is in the metadata."""
        if found.origin is Origin.MEMORY:
            return Reason.CACHED
        if found.origin is Origin.PAYLOAD and self.client.status is Status.STALE:
            return Reason.STALE
        return _REASONS.get(found.reason, Reason.UNKNOWN)


def _failed(
    default: T,
    code: ErrorCode,
    message: str,
    metadata: Mapping[str, bool | int | float | str] | None = None,
) -> FlagResolutionDetails[T]:
    return FlagResolutionDetails(
        default, error_code=code, error_message=message, reason=Reason.ERROR, flag_metadata=metadata or {}
    )


def _context(context: EvaluationContext | None) -> tuple[str, dict[str, Any]]:
    if context is None:
        return "", {}
    return context.targeting_key or "", _plain(context.attributes)


def _plain(value: Any) -> Any:
    """A context's attributes as conditions read them: times as text, sequences as lists."""
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Mapping):
        return {name: _plain(each) for name, each in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [_plain(each) for each in value]
    return value


def _boolean(value: Any) -> bool | None:
    return value if isinstance(value, bool) else None


def _string(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _integer(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _float(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _object(value: Any) -> Object | None:
    return cast("Object", value) if isinstance(value, dict | list) else None
