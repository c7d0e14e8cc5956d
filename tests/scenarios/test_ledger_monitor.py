"""If the ledger cannot be written, the gateway logs an error and stays ready."""

from __future__ import annotations

import resource
from pathlib import Path

from tests.e2e.gateway import get
from tests.e2e.operations import SERVING, health, metrics
from tests.e2e.samples import APIS, fresh_request
from tests.scenarios.conftest import RunSystem
from tests.scenarios.system import LEDGER_UNAVAILABLE

USABLE = "alipayhk_ledger_usable"


async def test_full_disk_is_logged_once_and_the_gateway_stays_ready(
    run_system: RunSystem, tmp_path: Path
) -> None:
    async with run_system() as system:
        gateway = system.gateway
        assert (await metrics(gateway))[USABLE] == 1
        known = fresh_request(APIS[0])
        await system.ok(APIS[0], known)
        pid, size = gateway.process.pid, (tmp_path / "ledger.db").stat().st_size
        _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, hard))
        for api in APIS:
            await system.reported(api, fresh_request(api), LEDGER_UNAVAILABLE)
        assert (await metrics(gateway))[USABLE] == 0
        assert (await get(gateway.admin, "/readyz"))[0] == 200
        assert await health(gateway.channel) == SERVING
        await system.ok(APIS[0], known, replayed=True)
    logged = [record for record in gateway.records if record["event"] == "ledger unavailable"]
    assert [record["level"] for record in logged] == ["error"]
