"""Make one SyncLinkage call, and print its outcome.

python one_call.py HOST:PORT USER_ID
"""

from __future__ import annotations

import asyncio
import sys

from alipayhk_linkage import LinkageClient, LinkageError, SyncLinkageRequest, new_request_id


async def main(target: str, user_id: str) -> int:
    """Make the call; return the exit status."""
    request = SyncLinkageRequest(
        request_id=new_request_id("example"),
        operate_type="OPERATE_TYPE_BIND",
        external_identity_type="EXTERNAL_IDENTITY_TYPE_UID",
        external_identity_value=new_request_id("member"),
        user_id=user_id,
        binding_target_type="BINDING_TARGET_TYPE_USER_ID",
    )
    request.biz_time.GetCurrentTime()
    async with LinkageClient(target) as client:
        try:
            await client.sync_linkage(request)
        except LinkageError as error:
            print(error.outcome, error.reason, error.retry)
            return 1
    print("OK")
    return 0


if __name__ == "__main__":
    if len(sys.argv) != 3:  # noqa: PLR2004
        sys.exit(__doc__)
    sys.exit(asyncio.run(main(*sys.argv[1:3])))
