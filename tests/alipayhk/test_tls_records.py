"""A TLS record that arrives in two parts, before and after a request, is not the response to it."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path
from typing import Any

import pytest

from clients.alipayhk.pairing import PairedProtocol
from clients.alipayhk.tls_records import CountedRecords, count_records
from tests.alipayhk.test_answer_pairing import answer, ask, bodies
from tests.alipayhk.upstream import Upstream, deaf, rested, transport
from tests.certificates import Authority
from tests.raw_http import Peer

RECORD = b"\x17\x03\x03\x01\x02" + bytes(0x102)
EMPTY_RECORD = b"\x17\x03\x03\x00\x00"


@pytest.mark.parametrize("first", [1, 4, 5, 6, len(RECORD) - 1])
def test_part_of_a_record_is_noticed_wherever_it_ends(first: int) -> None:
    received = ssl.MemoryBIO()
    records = CountedRecords(received)
    inside = [records.is_inside]
    for data in (EMPTY_RECORD + RECORD + RECORD[:first], RECORD[first:]):
        records.write(memoryview(data))
        inside.append(records.is_inside)
    assert inside == [False, True, False]
    assert received.read() == EMPTY_RECORD + RECORD + RECORD


def test_bytes_inside_a_record_that_look_like_a_record_are_part_of_it() -> None:
    received = ssl.MemoryBIO()
    records = CountedRecords(received)
    inside = []
    for data in (RECORD, EMPTY_RECORD, RECORD[:5], RECORD[5:-5], EMPTY_RECORD, RECORD):
        records.write(memoryview(data))
        inside.append(records.is_inside)
    assert inside == [False, False, True, True, False, False]
    assert received.read() == RECORD + EMPTY_RECORD + RECORD[:-5] + EMPTY_RECORD + RECORD


def test_bytes_received_with_the_end_of_the_handshake_are_counted_and_kept() -> None:
    received = ssl.MemoryBIO()
    received.write(RECORD[:-1])
    records = CountedRecords(received)
    assert records.is_inside
    assert (records.pending, received.read()) == (len(RECORD) - 1, RECORD[:-1])


def test_a_transport_without_tls_has_no_records() -> None:
    assert count_records(asyncio.Transport()) is None


async def test_part_of_a_record_on_a_new_connection_can_be_a_session_ticket(tmp_path: Path) -> None:
    authority, loop = Authority(tmp_path, "known"), asyncio.get_running_loop()
    async with Upstream(deaf, authority.server_context()) as upstream:
        made, protocol = await loop.create_connection(
            lambda: PairedProtocol(loop), "127.0.0.1", upstream.port, ssl=authority.client_context()
        )
        assert protocol._records is not None
        protocol._records.write(RECORD[:1])
        assert protocol._records.is_inside
        assert await protocol.ready()
        made.abort()


def record(wire: Peer, data: bytes) -> tuple[bytes, asyncio.Transport]:
    """Encrypt bytes; return the record, not sent, and the transport below TLS."""
    protocol: Any = wire.writer.transport._ssl_protocol  # type: ignore[attr-defined]
    wire.writer.get_extra_info("ssl_object").write(data)
    return protocol._outgoing.read(), protocol._transport


@pytest.mark.parametrize("pause_s", [0.0, 0.05, 0.2])
async def test_record_completed_after_the_next_request_is_not_its_response(
    tmp_path: Path, pause_s: float
) -> None:
    authority = Authority(tmp_path, "known")
    pushed = asyncio.Event()

    async def script(wire: Peer) -> None:
        await wire.request()
        if pushed.is_set():
            await wire.send(answer("2"))
            return
        await wire.send(answer("1"))
        await asyncio.sleep(pause_s)
        pushed_record, below = record(wire, answer("another's"))
        below.write(pushed_record[:-1])
        pushed.set()
        try:
            await wire.reader.read(1)
        finally:
            below.write(pushed_record[-1:])

    async with (
        Upstream(script, authority.server_context()) as upstream,
        transport(tls=authority.client_context()) as opened,
    ):
        first = await ask(opened, upstream)
        await pushed.wait()
        await rested()
        assert bodies(first, await ask(opened, upstream)) == [b"1", b"2"]
