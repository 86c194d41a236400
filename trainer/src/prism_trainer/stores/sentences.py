"""What object storage answers when it refuses, as a sentence. Knows botocore's errors and nothing of checkpoints."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import botocore.exceptions as boto  # type: ignore[import-untyped]

from prism_trainer.errors import StorageError, UnreachableError

TRANSIENT_CODES = {
    *("InternalError", "ServiceUnavailable", "SlowDown", "RequestTimeout", "OperationAborted", "ConditionalRequestConflict"),
    *("500", "502", "503", "504", "429"),
}
TRANSIENT_ERRORS = (
    boto.HTTPClientError,
    boto.ConnectionError,
    boto.IncompleteReadError,
    aiohttp.ClientError,
    ConnectionError,
    TimeoutError,
)
NOT_ACCEPTED = ("InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken", "TokenRefreshRequired")
ELSEWHERE = ("PermanentRedirect", "301", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException")


def is_transient(error: BaseException) -> bool:
    """Whether the same call may go well a little later."""
    return any(isinstance(cause, TRANSIENT_ERRORS) or _code(cause) in TRANSIENT_CODES for cause in _chain(error))


def is_missing_key(error: BaseException) -> bool:
    """The bucket is there, the object is not."""
    if any(_code(cause) == "NoSuchBucket" for cause in _chain(error)):
        return False
    return isinstance(error, FileNotFoundError) and not _is_not_s3(error)


def refusal(uri: str, endpoint: str | None, error: Exception) -> StorageError:
    """What to tell the person who wrote the PrismRun or made the Secret."""
    at = f"object storage at {endpoint or 'AWS'}"
    codes = [code for cause in _chain(error) if (code := _code(cause))]
    code = codes[0] if codes else ""
    if any(isinstance(cause, boto.NoCredentialsError | boto.PartialCredentialsError | boto.ConfigParseError) for cause in _chain(error)):
        return StorageError(f"'{uri}': no credentials for {at} ({_credentials_found()}); name a Secret in spec.secrets.objectStore")
    if code == "NoSuchBucket":
        bucket = uri.removeprefix("s3://").split("/")[0]
        return StorageError(f"'{uri}': {at} has no bucket '{bucket}'; make it, or correct spec.storage.objectStore.uri")
    if code in NOT_ACCEPTED:
        return StorageError(f"'{uri}': {at} does not accept the credentials ({code}); correct the Secret of spec.secrets.objectStore")
    if code in ELSEWHERE:
        return StorageError(f"'{uri}': the bucket is in another region than the one asked ({code}); set AWS_REGION in spec.env")
    if isinstance(error, PermissionError):
        reason = f"{at} denies access ({code or error})"
        return StorageError(f"'{uri}': {reason}; allow these credentials to list, read, write and delete there")
    if isinstance(error, ValueError | boto.ParamValidationError) and not codes:
        return StorageError(f"'{uri}': {error}; correct the address, or spec.storage.objectStore.endpoint")
    if _is_not_s3(error):
        return StorageError(f"'{uri}': {at} does not answer as S3 does ({error}); correct spec.storage.objectStore.endpoint")
    if is_transient(error):
        return UnreachableError(f"'{uri}': {at} does not answer ({_brief(error)}); look at it, and at spec.storage.objectStore.endpoint")
    return StorageError(f"'{uri}': {at} refuses ({_brief(error)}); correct what it names")


def _is_not_s3(error: BaseException) -> bool:
    """S3 names its errors in XML; where only the number of HTTP is known, something else answered."""
    parsers = (boto.EndpointProviderError, boto.UnknownServiceError)
    return any(isinstance(c, parsers) or type(c).__name__ == "ResponseParserError" or _is_bare(c) for c in _chain(error))


def _is_bare(error: BaseException) -> bool:
    """HEAD has no body, so it tells a number whoever answers."""
    return _code(error) in ("400", "404", "405", "501") and getattr(error, "operation_name", "") != "HeadObject"


def _credentials_found() -> str:
    file = os.environ.get("AWS_SHARED_CREDENTIALS_FILE")
    if file is None:
        return "AWS_SHARED_CREDENTIALS_FILE is not set"
    return f"'{file}' has no [default] with aws_access_key_id and aws_secret_access_key" if Path(file).exists() else f"no file '{file}'"


def _code(error: BaseException) -> str:
    response = getattr(error, "response", None)
    return str(response.get("Error", {}).get("Code", "")) if isinstance(response, dict) else ""


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


def _brief(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
