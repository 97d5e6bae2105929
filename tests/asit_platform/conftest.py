from collections.abc import Iterator

import pytest
from moto.server import ThreadedMotoServer

from asit_platform.storage import Place


@pytest.fixture(scope="module")
def bucket_url() -> Iterator[str]:
    """URL of a folder in a bucket of a server on this machine; other modules get another bucket."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", "test")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
        server.start()
        host, port = server.get_host_and_port()
        query = f"?endpoint_override={host}:{port}&scheme=http&allow_bucket_creation=true"
        url = f"s3://bucket/folder{query}"
        Place.of(url).filesystem.create_dir("bucket")
        yield url
        server.stop()
