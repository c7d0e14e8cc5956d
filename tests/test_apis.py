"""Everything that has one row per API of AlipayHK has a row for each member of `Api`."""

from __future__ import annotations

import pytest

from clients.alipayhk.api import API_NAMES, Api
from sandbox.apis import APIS
from service.commands.demo.demo import PATHS
from service.config.declaration import declared
from service.config.settings import Settings
from service.server.linkage_service import RPCS
from service.upstream import ENDPOINTS


def test_names_are_those_that_ledgers_and_callers_files_contain() -> None:
    assert API_NAMES == ("SyncLinkage", "BindAccount")


def test_every_api_has_an_rpc_an_endpoint_and_a_row_in_the_sandbox_and_in_the_demo() -> None:
    assert [rpc.name for rpc in RPCS.values()] == list(Api)
    assert list(ENDPOINTS) == list(Api)
    assert [(name, row.name) for name, row in APIS.items()] == [(api, api) for api in Api]
    assert list(PATHS) == list(Api)


@pytest.mark.parametrize("api", Api)
def test_every_api_has_a_path_in_its_group_of_settings(api: Api) -> None:
    assert f"{api.name.lower()}_path" in dict(declared(Settings))
