"""If its listener stops unexpectedly, a gateway is not ready, finishes its attempts and exits with 70."""

from __future__ import annotations

import asyncio
import signal
import sys
from typing import Final

from service.commands.exit_codes import EX_SOFTWARE
from tests.e2e.conftest import Run
from tests.e2e.gateway import get
from tests.e2e.samples import SYNC
from tests.e2e.test_load import held
from tests.e2e.upstream import Upstream
from tests.e2e.wallet import Wallet

PROGRAM: Final = (sys.executable, "-m", "tests.e2e.stopped_listener")


async def test_gateway_with_a_stopped_listener_is_not_ready_and_exits_with_70(
    run: Run, upstream: Upstream, wallet: Wallet
) -> None:
    async with run(program=PROGRAM) as gateway, held(gateway.channel, SYNC, upstream, wallet) as first:
        gateway.ends_with = EX_SOFTWARE
        assert (await get(gateway.admin, "/readyz"))[0] == 200
        gateway.process.send_signal(signal.SIGUSR1)
        noticed = await gateway.logged(lambda record: record["event"] == "listener stopped unexpectedly")
        await gateway.logged(lambda record: record["event"] == "shutdown started")
        assert (await get(gateway.admin, "/readyz"))[0] == 503
        assert (await get(gateway.admin, "/livez"))[0] == 200
        first.until.set()
        assert await gateway.ended() == EX_SOFTWARE
        await asyncio.gather(first.calling, return_exceptions=True)
    assert (noticed["level"], noticed["where"]) == ("error", "LISTEN")
    assert "the listener of LISTEN stopped unexpectedly" in "".join(gateway.err)
    ends = [record["end"] for record in gateway.records if record["event"] == "attempt"]
    assert ends == ["success"], "the attempt in progress was not finished and recorded"
