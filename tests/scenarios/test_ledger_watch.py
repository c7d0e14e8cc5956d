"""If the ledger cannot be written, the gateway logs an error and stays ready."""

from __future__ import annotations

import resource
from pathlib import Path

from tests.e2e.gateway import get
from tests.e2e.operations import SERVING, health, metrics
from tests.e2e.samples import APIS, apart
from tests.scenarios.conftest import Stage
from tests.scenarios.scene import LEDGER_UNAVAILABLE

USABLE = "alipayhk_ledger_usable"


async def test_full_disk_is_logged_once_and_the_gateway_stays_ready(stage: Stage, tmp_path: Path) -> None:
    async with stage() as scene:
        gateway = scene.gateway
        assert (await metrics(gateway))[USABLE] == 1
        known = apart(APIS[0])
        await scene.ok(APIS[0], known)
        pid, size = gateway.process.pid, (tmp_path / "ledger.db").stat().st_size
        _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, hard))
        for api in APIS:
            await scene.reported(api, apart(api), LEDGER_UNAVAILABLE)
        assert (await metrics(gateway))[USABLE] == 0
        assert (await get(gateway.admin, "/readyz"))[0] == 200
        assert await health(gateway.channel) == SERVING
        await scene.ok(APIS[0], known, replayed=True)
    said = [record for record in gateway.records if record["event"] == "the ledger cannot be used"]
    assert [record["level"] for record in said] == ["error"]
