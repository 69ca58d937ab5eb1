"""How each provider says no: status, headers and body of a fault, in the words of the protocol that was spoken.

One name can mean opposite things: `insufficient_quota` is an empty account at OpenAI, and at DashScope a limit of
tokens a minute that lifts by itself. The bodies are data, so that a look settles what was tested.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from .asked import Dialect
from .script import Fault, Rule
from .wire import Outgoing

# status, type, code, message
_OPENAI: Mapping[Fault, tuple[int, str, str | None, str]] = {
    Fault.RATE_LIMITED: (429, "requests", "rate_limit_exceeded", "Rate limit reached for requests. Please try again later."),
    Fault.SLOW_DOWN: (429, "requests", "slow_down", "Traffic grew too fast. Slow down and ramp up gradually."),
    Fault.TOKENS_LIMITED: (429, "tokens", "rate_limit_exceeded", "Rate limit reached for tokens per minute (TPM)."),
    Fault.NO_MONEY: (429, "insufficient_quota", "insufficient_quota", "You exceeded your current quota. Check plan and billing."),
    Fault.FREE_TIER_ONLY: (429, "insufficient_quota", "credit_balance_exhausted", "The credit balance is used up."),
    Fault.BAD_KEY: (401, "invalid_request_error", "invalid_api_key", "Incorrect API key provided."),
    Fault.FORBIDDEN: (403, "invalid_request_error", "unsupported_country_region_territory", "This project may not use the model."),
    Fault.MODEL_GONE: (404, "invalid_request_error", "model_not_found", "The model does not exist or you do not have access to it."),
    Fault.BAD_REQUEST: (400, "invalid_request_error", "invalid_value", "Invalid value in the request."),
    Fault.MODERATED: (400, "image_generation_user_error", "moderation_blocked", "The request was rejected by the safety system."),
    Fault.CONFLICT: (409, "invalid_request_error", None, "The resource was changed by another request."),
    Fault.TOO_LATE: (408, "server_error", None, "The request timed out."),
    Fault.SERVER_ERROR: (500, "server_error", None, "The server had an error while processing the request."),
    Fault.UNAVAILABLE: (503, "server_error", None, "The service is unavailable."),
    Fault.OVERLOADED: (503, "server_error", "server_is_overloaded", "The engine is currently overloaded."),
    Fault.GATEWAY_TIMEOUT: (504, "server_error", None, "The upstream server took too long."),
}  # fmt: skip

# status, code on the native wire, code in compatible mode, message
_DASHSCOPE: Mapping[Fault, tuple[int, str, str, str]] = {
    Fault.RATE_LIMITED: (429, "Throttling.RateQuota", "limit_requests", "Requests rate limit exceeded, please try again later."),
    Fault.SLOW_DOWN: (429, "Throttling.BurstRate", "limit_burst_rate", "Request rate increased too quickly."),
    Fault.TOKENS_LIMITED: (429, "Throttling.AllocationQuota", "insufficient_quota", "Allocated quota exceeded, please increase your quota limit."),
    Fault.NO_MONEY: (400, "Arrearage", "Arrearage", "Access denied, please make sure your account is in good standing."),
    Fault.FREE_TIER_ONLY: (403, "AllocationQuota.FreeTierOnly", "AllocationQuota.FreeTierOnly", "The free tier of the model has been exhausted."),
    Fault.BAD_KEY: (401, "InvalidApiKey", "invalid_api_key", "Invalid API-key provided."),
    Fault.FORBIDDEN: (403, "AccessDenied.Unpurchased", "access_denied", "Access to model denied."),
    Fault.MODEL_GONE: (404, "ModelNotFound", "model_not_found", "The model can not be found or you have no access to it."),
    Fault.BAD_REQUEST: (400, "InvalidParameter", "invalid_parameter_error", "Value error in the request."),
    Fault.MODERATED: (400, "DataInspectionFailed", "data_inspection_failed", "Input data may contain inappropriate content."),
    Fault.CONFLICT: (409, "Conflict", "conflict", "The resource was changed by another request."),
    Fault.TOO_LATE: (408, "RequestTimeOut", "request_timeout", "Request timed out, please try again later."),
    Fault.SERVER_ERROR: (500, "InternalError", "internal_error", "An internal error has occurred."),
    Fault.UNAVAILABLE: (503, "ServiceUnavailable", "service_unavailable", "The service is unavailable."),
    Fault.OVERLOADED: (503, "ModelServingError", "model_serving_error", "Too many requests. The serving is overloaded."),
    Fault.GATEWAY_TIMEOUT: (504, "GatewayTimeout", "gateway_timeout", "The upstream server took too long."),
}  # fmt: skip

_PAGE = "<!doctype html><html><head><title>{0}</title></head><body><h1>{0}</h1></body></html>"


def refusal(
    fault: Fault, dialect: Dialect, rule: Rule | None = None, *, message: str = "", target: str = ""
) -> Outgoing | None:
    """The response that refuses, or None where the fault is no refusal. `target` is what a redirect keeps."""
    status = None if rule is None else rule.status
    headers: dict[str, str] = {}
    if rule is not None and rule.retry_after_s is not None:
        headers = _retry_after(rule.retry_after_s)
    if fault is Fault.REDIRECT and rule is not None and rule.location is not None:
        whole = rule.location if rule.location.count("/") > 2 else rule.location + target
        return Outgoing(status=status or 307, headers={"location": whole}, content_type="text/plain")
    if fault is Fault.BAD_GATEWAY:
        return Outgoing(
            status=status or 502,
            headers=headers,
            content_type="text/html",
            body=_PAGE.format("502 Bad Gateway").encode(),
        )
    if fault is Fault.HTML:
        return Outgoing(status=status or 200, content_type="text/html", body=_PAGE.format("Sign in").encode())
    if fault not in _OPENAI:
        return None
    if fault is Fault.ERROR_IN_BODY:
        return None
    code = (_OPENAI if dialect is Dialect.OPENAI else _DASHSCOPE)[fault][0]
    return Outgoing(status=status or code, headers=headers, body=json.dumps(words(fault, dialect, message)).encode())


def words(fault: Fault, dialect: Dialect, message: str = "") -> dict[str, Any]:
    """The JSON body by which a provider refuses."""
    if dialect is Dialect.OPENAI:
        _, kind, code, said = _OPENAI[fault]
        return {"error": {"message": message or said, "type": kind, "param": None, "code": code}}
    _, native, compatible, said = _DASHSCOPE[fault]
    if dialect is Dialect.COMPATIBLE:
        return {"error": {"message": message or said, "type": compatible, "param": None, "code": compatible}}
    return {"code": native, "message": message or said, "request_id": "stub"}


def of_status(status: int, dialect: Dialect) -> Fault:
    """The fault that a bare status stands for."""
    for fault, (known, *_) in (_OPENAI if dialect is Dialect.OPENAI else _DASHSCOPE).items():
        if known == status:
            return fault
    return Fault.SERVER_ERROR if status >= 500 else Fault.BAD_REQUEST


def _retry_after(seconds: float) -> dict[str, str]:
    if seconds.is_integer():
        return {"retry-after": str(int(seconds))}
    return {"retry-after-ms": str(round(seconds * 1000)), "retry-after": str(seconds)}
