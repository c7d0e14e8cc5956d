"""Marked identity values in every field never appear in logs, metrics, spans or statuses."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from typing import Any, Final

import grpc
import pytest
import pytest_asyncio

from alipayhk.linkage.v1 import linkage_service_pb2 as pb
from tests.e2e import caller
from tests.e2e.caller import Reported
from tests.e2e.collector import collecting
from tests.e2e.conftest import Run
from tests.e2e.gateway import Gateway, get
from tests.e2e.samples import APIS, BIND, SYNC, Api, fresh_request, new_id
from tests.e2e.upstream import Response, Script, Upstream, closes, hangs, responds, sends
from tests.e2e.wallet import Wallet, compact, result

MARKS: Final = {
    "external_identity_value": "標記會員-zq47-甲",
    "user_id": "marked-user-zq47",
    "binding_target": "標記卡號-zq47-丙",
    "external_binding_id": "marked-binding-zq47",
    "merchant_account_id": "marked-merchant-zq47",
    "sub_merchant_id": "標記分店-zq47",
    "type": "marked-type-zq47",
    "sub_type": "標記種類-zq47",
    "account_id": "marked-account-zq47",
    "open_id": "marked-open-zq47",
    "extend_info": '{"標記":"marked-extend-zq47"}',
    "form": "marked-form-zq47",
    "code": "標記欄位-zq47",
    "value": "標記資料-zq47",
}
FRAGMENTS: Final = (
    "標記",
    "zq47",
    *(json.dumps(text).strip('"')[:12] for text in ("標記會", "標記卡", "標記資")),
)
ECHO: Final = " ".join(MARKS.values())


def marked(api: Api, **changes: Any) -> Any:
    """Return a request with a marked value in every field."""
    names = {field.name for field in api.request().DESCRIPTOR.fields}
    members = {name: text for name, text in MARKS.items() if name in names}
    return api.request(**({"request_id": new_id()} | members | changes))


def marked_form() -> Any:
    """Return a request with marked values in a form."""
    form = pb.TemplateForm(form_code=MARKS["form"], form_values={MARKS["code"]: MARKS["value"]})
    return marked(BIND, account_id=None, template_form=form)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def verbose_gateway(run: Run) -> AsyncIterator[Gateway]:
    """Return a gateway that logs at level debug; its spans must not contain a marked value either."""
    with collecting() as collector:
        settings = {"LOG_LEVEL": "debug", "DEFAULT_DEADLINE_S": "1.5"}
        async with run(settings, environ=collector.environ) as gateway:
            yield gateway
        exported = {each.span.span_id.hex() for each in collector.spans if each.is_call}
        assert exported == {line["span_id"] for line in gateway.records if "span_id" in line} != set()
        spans = b"".join(collector.bodies).decode(errors="replace")
        assert [mark for mark in FRAGMENTS if mark in spans] == []


FULL: Final = {**BIND.success, "echo": ECHO, "accountInfo": {"name": ECHO, "phone": ECHO}}
ECHOED: Final = compact({"result": {"resultCode": ECHO, "resultStatus": ECHO, "resultMessage": ECHO}})
PAGE: Final = Response(502, (("Content-Type", "text/html"), ("X-Echo", "marked-zq47")), ECHO.encode())


def raw_bytes(data: bytes) -> Callable[[Wallet], Script]:
    """Return a factory of a script that sends these bytes and closes the connection."""
    return lambda _: sends(data, then=closes)


def fixed(response: Response) -> Callable[[Wallet], Script]:
    """Return a factory of a script that sends this response to every request."""
    return lambda _: responds(lambda _: response)


OUTCOMES: Final[dict[str, Callable[[Wallet], Script]]] = {
    "success": lambda wallet: wallet.says(FULL),
    "failure": lambda wallet: wallet.says(result("F", "USER_NOT_EXIST", ECHO)),
    "unknown": lambda wallet: wallet.says(result("U", "SYSTEM_ERROR", ECHO)),
    "page": fixed(PAGE),
    "unsigned": fixed(Response(200, (), ECHOED)),
    "forged": lambda wallet: responds(lambda _: Response(200, (("Signature", "marked-zq47"),), ECHOED)),
    "malformed": lambda wallet: responds(
        lambda request: wallet.signed(request, b'{"r":{"' + ECHO.encode())
    ),
    "other client": lambda wallet: responds(
        lambda request: wallet.signed(request, client_id="marked-zq47")
    ),
    "no http": raw_bytes(b"marked-zq47 " + ECHO.encode() + b"\r\n\r\n"),
    "cut": raw_bytes(Response(200, (), b"marked-zq47").head(("Content-Length", "99"))),
    "hang": lambda _: hangs,
}


def texts_of(outcome: Reported) -> list[str]:
    """Return every text of a status, except AlipayHK's own message and the request id."""
    metadata = {name: text for name, text in outcome.metadata.items() if name != "result_message"}
    trailers = [str(value) for name, value in outcome.trailers.items() if name != caller.DETAILS]
    return [outcome.message, *metadata.values(), *map(str, caller.violations_of(outcome)), *trailers]


async def check_clean(gateway: Gateway) -> None:
    """Check that no log line and no metric contains a marked value."""
    _, text = await get(gateway.admin, "/metrics")
    lines = [*gateway.out, *gateway.err, *text.splitlines()]
    assert [line for line in lines if any(mark in line for mark in FRAGMENTS)] == []


@pytest.mark.parametrize("kind", OUTCOMES)
@pytest.mark.parametrize("api", APIS, ids=str)
async def test_marked_values_never_appear(
    verbose_gateway: Gateway, upstream: Upstream, wallet: Wallet, api: Api, kind: str
) -> None:
    upstream.script = OUTCOMES[kind](wallet)
    for request in (marked(api), *([marked_form()] if api is BIND else [])):
        outcome = await caller.call(
            verbose_gateway.channel, api, request, timeout_s=8 if kind == "success" else None
        )
        await verbose_gateway.call_logged(request.request_id)
        assert isinstance(outcome, Reported) is (kind != "success")
        if isinstance(outcome, Reported):
            assert [text for text in texts_of(outcome) if any(mark in text for mark in FRAGMENTS)] == []
    assert upstream.requests
    await check_clean(verbose_gateway)


async def test_marked_values_of_an_invalid_request_never_appear(
    verbose_gateway: Gateway, upstream: Upstream
) -> None:
    control = {name: f"{text}\n" * 40 for name, text in MARKS.items()}
    bad: list[tuple[Api, Any]] = [
        (SYNC, SYNC.request(**{n: control[n] for n in ("user_id", "binding_target")})),
        (SYNC, marked(SYNC, request_id="標記 zq47")),
        (
            BIND,
            BIND.request(**{n: control[n] for n in ("user_id", "type", "account_id", "extend_info")}),
        ),
        (BIND, marked(BIND, extend_info='{"zq47":NaN}')),
        (BIND, marked(BIND, account_id=None, template_form={"form_values": {control["code"]: "x"}})),
    ]
    for api, request in bad:
        outcome = await caller.call(verbose_gateway.channel, api, request)
        assert [text for text in texts_of(outcome) if any(mark in text for mark in FRAGMENTS)] == []
    for api in APIS:
        outcome = await caller.call(verbose_gateway.channel, api, b"\x0a\x7f" + ECHO.encode())
        assert [text for text in texts_of(outcome) if any(mark in text for mark in FRAGMENTS)] == []
    assert upstream.requests == []
    await check_clean(verbose_gateway)


async def test_marked_values_in_an_unknown_method_or_metadata_never_appear(
    verbose_gateway: Gateway, upstream: Upstream, wallet: Wallet
) -> None:
    upstream.script = wallet.says()
    for path in ("/marked-zq47/x", "/alipayhk.linkage.v1.LinkageService/marked-zq47"):
        method: Any = verbose_gateway.channel.unary_unary(path)
        with pytest.raises(grpc.aio.AioRpcError):
            await method(b"", metadata=(("x-marked", "zq47"),))
    names = ("traceparent", "tracestate", "baggage", "x-marked")
    method = verbose_gateway.channel.unary_unary(SYNC.path)
    await method(fresh_request(SYNC).SerializeToString(), metadata=[(name, "zq47=zq47") for name in names])
    await check_clean(verbose_gateway)
